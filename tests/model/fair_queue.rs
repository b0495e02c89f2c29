//! Producers that submit jobs of several tenants, and consumers, some of which stop waiting from time to time.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use shuttle::{
    future::{block_on, spawn},
    rand::{Rng, thread_rng},
};

use crate::{
    Gauge, cancel_after,
    tenancy::{Demotable, Tenant, TenantGroup, fair_queue::FairQueue},
    yield_some,
};

const PRODUCERS: usize = 3;
const JOBS_OF_EACH: usize = 3;
const WORKERS: usize = 2;
/// As many jobs may be demoted as there are workers.
const CONSUMERS: usize = 2 * WORKERS;

/// A job, which counts how often it was delivered.
struct ModelJob {
    demotable: Demotable,
    is_fixed: bool,
    delivered: Arc<AtomicUsize>,
    abandoned: Arc<AtomicBool>,
}

pub(crate) fn model() {
    block_on(async {
        let is_abandoned = |job: &ModelJob| job.abandoned.load(Ordering::SeqCst);
        let queue = FairQueue::new(8, WORKERS, is_abandoned);
        let (all, fixed) = (Gauge::new(CONSUMERS), Gauge::new(WORKERS));
        let consumers: Vec<_> = (0..CONSUMERS)
            .map(|number| spawn(consume(number, queue.clone(), all.clone(), fixed.clone())))
            .collect();
        let producers: Vec<_> =
            (0..PRODUCERS).map(|token| spawn(produce(queue.clone(), token as u64))).collect();
        // Moves jobs from the channel into the list, as every caller of a method that locks the list does.
        let counted = queue.clone();
        let observer = spawn(async move {
            for _ in 0..PRODUCERS * JOBS_OF_EACH {
                assert!(counted.len() <= PRODUCERS * JOBS_OF_EACH);
                yield_some(2).await;
            }
        });
        let mut accepted = Vec::new();
        for producer in producers {
            accepted.extend(producer.await.unwrap());
        }
        // Closing wakes every consumer, so a lost wake-up shows only before: this loop would then exceed the explorer's
        // maximum number of steps.
        let is_settled = |(delivered, abandoned): &Fate| {
            delivered.load(Ordering::SeqCst) > 0 || abandoned.load(Ordering::SeqCst)
        };
        while !accepted.iter().all(is_settled) {
            shuttle::future::yield_now().await;
        }
        observer.await.unwrap();
        queue.close();
        // A consumer that is never woken is a deadlock, which the explorer reports.
        for consumer in consumers {
            consumer.await.unwrap();
        }
        for (delivered, abandoned) in accepted {
            let times = delivered.load(Ordering::SeqCst);
            let may_be_lost = abandoned.load(Ordering::SeqCst);
            assert!(times == 1 || (times == 0 && may_be_lost), "delivered {times} times");
        }
    });
}

/// How often a job was delivered, and whether it was abandoned by its requester or evicted.
type Fate = (Arc<AtomicUsize>, Arc<AtomicBool>);

async fn produce(queue: FairQueue<ModelJob>, token: u64) -> Vec<Fate> {
    let mut accepted: Vec<Fate> = Vec::new();
    for _ in 0..JOBS_OF_EACH {
        let group = thread_rng().gen_range(0..2_u64);
        let tenant = TenantGroup { tenant: Tenant::Token(token), group };
        let is_fixed = thread_rng().gen_bool(0.5);
        let demotable = Demotable::new(!is_fixed);
        let (delivered, abandoned) = (Arc::default(), Arc::default());
        let job = ModelJob {
            demotable: demotable.clone(),
            is_fixed,
            delivered: Arc::clone(&delivered),
            abandoned: Arc::clone(&abandoned),
        };
        match queue.submit(job, tenant, demotable) {
            Ok(evicted) => {
                accepted.push((delivered, Arc::clone(&abandoned)));
                if let Some(evicted) = evicted {
                    evicted.abandoned.store(true, Ordering::SeqCst);
                }
            }
            Err(_full) => {}
        }
        yield_some(2).await;
        if thread_rng().gen_bool(0.2) {
            abandoned.store(true, Ordering::SeqCst);
        }
    }
    accepted
}

async fn consume(number: usize, queue: FairQueue<ModelJob>, all: Gauge, fixed: Gauge) {
    loop {
        // Some consumers give up at some await point and come again.
        let polls =
            if thread_rng().gen_bool(0.3) { thread_rng().gen_range(1..3) } else { usize::MAX };
        let Some(next) = cancel_after(polls, queue.next()).await else {
            shuttle::future::yield_now().await;
            continue;
        };
        let Some(mut admitted) = next else { return };
        let job = admitted.take().unwrap();
        let _busy = all.enter();
        // A job that cannot be demoted always counts towards the workers.
        let _fixed = job.is_fixed.then(|| fixed.enter());
        job.delivered.fetch_add(1, Ordering::SeqCst);
        yield_some(2).await;
        job.demotable.set(false);
        yield_some(1).await;
        // A consumer that ends its job does not always look for the next one: others must then be woken.
        if number > 0 && thread_rng().gen_bool(0.5) {
            return;
        }
    }
}

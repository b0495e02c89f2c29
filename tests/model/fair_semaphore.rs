//! Callers of several tenants, some of which are cancelled while they wait.

use std::sync::Arc;

use shuttle::{
    future::{block_on, spawn},
    rand::{Rng, thread_rng},
};

use crate::{
    Gauge, cancel_after,
    tenancy::{Tenant, fair_semaphore::FairSemaphore},
    yield_some,
};

const CALLERS: usize = 6;
const PERMITS: usize = 3;
const SHARE: usize = 2;

pub(crate) fn model() {
    block_on(async {
        let semaphore = Arc::new(FairSemaphore::new(PERMITS, SHARE));
        let all = Gauge::new(PERMITS);
        let (servers, tokens) =
            ([Gauge::new(SHARE), Gauge::new(SHARE)], [Gauge::new(SHARE), Gauge::new(SHARE)]);
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let server = thread_rng().gen_range(0..2_usize);
                let token = thread_rng().gen_bool(0.7).then(|| thread_rng().gen_range(0..2_usize));
                let cancelled = thread_rng().gen_bool(0.3);
                let polls = if cancelled { thread_rng().gen_range(0..4) } else { usize::MAX };
                let (semaphore, all) = (Arc::clone(&semaphore), all.clone());
                let (servers, tokens) = (servers.clone(), tokens.clone());
                spawn(async move {
                    let tenants =
                        std::iter::once(Tenant::from_host(["a.example", "b.example"][server]));
                    let tenants = tenants.chain(token.map(|token| Tenant::Token(token as u64)));
                    let permit = cancel_after(polls, semaphore.acquire(tenants)).await;
                    assert!(cancelled || permit.is_some(), "a caller got no permit");
                    if permit.is_some() {
                        let _all = all.enter();
                        let _server = servers[server].enter();
                        let _token = token.map(|token| tokens[token].enter());
                        yield_some(2).await;
                    }
                    drop(permit);
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
    });
}

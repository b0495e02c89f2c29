use std::time::Instant;

use tokio::sync::oneshot;

use super::*;
use crate::scan::{
    cache::MediaKey,
    job::{JobOutcome, Progress, no_work},
    request::ScanRequest,
};
use crate::tenancy::{Demotable, TenantGroup};

type JobReply = oneshot::Receiver<Result<JobOutcome, ScanError>>;

/// Submits a job and returns the receiver of its reply.
fn submit(queue: &Queue, server: &str, token: Option<&'static str>) -> Result<JobReply, Full> {
    submit_request(queue, ScanRequest::for_test(server, token))
}

/// Submits a job that no client waits for.
fn submit_background(queue: &Queue) -> Result<JobReply, Full> {
    let mut request = ScanRequest::for_test("background.example", Some("service"));
    request.fetch.requester.tenant = TenantGroup::background();
    submit_request(queue, request)
}

fn submit_request(queue: &Queue, request: ScanRequest) -> Result<JobReply, Full> {
    let (reply, answer) = oneshot::channel();
    let submitted = queue.submit(ScanJob {
        work: no_work(),
        key: MediaKey::from_request(&request),
        request,
        reply,
        demotable: Demotable::new(true),
        progress: Progress::detached(),
        span: tracing::Span::none(),
        accepted: Instant::now(),
        deadline: Instant::now(),
    });
    submitted.map(|()| answer)
}

fn server_of(admitted: &AdmittedJob) -> &str {
    admitted.job().unwrap().request.fetch.media.server_name()
}

/// Returns the job that may start now, without waiting.
fn next_now(queue: &Queue) -> Option<AdmittedJob> {
    use futures_util::FutureExt;
    queue.next().now_or_never().flatten()
}

#[tokio::test]
async fn full_queue_rejects_until_a_job_starts_or_is_abandoned() {
    let queue = Queue::new(3, 8);
    let _first = submit(&queue, "a.example", None).unwrap();
    let _second = submit(&queue, "b.example", None).unwrap();
    let third = submit(&queue, "c.example", None).unwrap();
    assert_eq!(submit(&queue, "d.example", None).unwrap_err(), Full);
    assert_eq!(queue.len(), 3);
    drop(third);
    let _kept = submit(&queue, "d.example", None).expect("one requester has left");
    assert_eq!(submit(&queue, "e.example", None).unwrap_err(), Full);
    assert_eq!(server_of(&next_now(&queue).unwrap()), "a.example");
    let _last = submit(&queue, "e.example", None).expect("a worker has taken one job");
}

#[tokio::test]
async fn queue_with_capacity_one_accepts_one_job() {
    let queue = Queue::new(1, 1);
    let answer = submit(&queue, "a.example", Some("one")).unwrap();
    assert_eq!(submit(&queue, "b.example", Some("two")).unwrap_err(), Full);
    drop(answer);
    let _answer = submit(&queue, "b.example", Some("two")).expect("the other job is abandoned");
    assert_eq!(server_of(&next_now(&queue).unwrap()), "b.example");
}

#[tokio::test]
async fn counts_return_to_zero_by_every_path() {
    let queue = Queue::new(4, 4);
    let answers = [
        submit(&queue, "a.example", Some("one")).unwrap(),
        submit(&queue, "b.example", Some("two")).unwrap(),
        submit(&queue, "c.example", Some("three")).unwrap(),
    ];
    let admitted = next_now(&queue).unwrap();
    drop(answers);
    assert!(next_now(&queue).is_none());
    assert!(queue.is_empty());
    assert!(!queue.0.has_no_counts(), "a worker has one job");
    drop(admitted);
    assert!(queue.0.has_no_counts());
}

#[tokio::test]
async fn workers_of_a_closed_queue_end_when_the_last_requester_leaves() {
    let queue = Queue::new(16, 1);
    let _started = submit(&queue, "a.example", None).unwrap();
    let admitted = next_now(&queue).unwrap();
    admitted.job().unwrap().demotable.set(false);
    let queued = submit(&queue, "a.example", None).unwrap();
    let wait = || {
        let queue = queue.clone();
        tokio::spawn(async move { queue.next().await.is_none() })
    };
    let workers = [wait(), wait(), wait()];
    tokio::task::yield_now().await;
    queue.close();
    tokio::task::yield_now().await;
    drop(queued);
    drop(admitted);
    for worker in workers {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), worker);
        assert!(ended.await.expect("a worker still waits").unwrap());
    }
}

#[tokio::test]
async fn len_does_not_hide_a_job_from_a_waiting_worker() {
    let queue = Queue::new(16, 4);
    let worker = {
        let queue = queue.clone();
        tokio::spawn(async move { server_of(&queue.next().await.unwrap()).to_owned() })
    };
    tokio::task::yield_now().await;
    let _answer = submit(&queue, "a.example", None).unwrap();
    assert_eq!(queue.len(), 1);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), worker);
    assert_eq!(ended.await.expect("the worker is woken").unwrap(), "a.example");
}

#[tokio::test]
async fn abandoned_jobs_are_not_started() {
    let queue = Queue::new(100, 4);
    drop(submit(&queue, "a.example", None).unwrap());
    let _wanted = submit(&queue, "b.example", None).unwrap();
    assert_eq!(server_of(&next_now(&queue).unwrap()), "b.example");
    assert!(queue.is_empty());
}

#[tokio::test]
async fn closed_queue_delivers_waiting_jobs_and_then_ends_for_every_worker() {
    let queue = Queue::new(100, 4);
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(submit(&queue, "a.example", None).unwrap());
    }
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while let Some(admitted) = queue.next().await {
                    tokio::task::yield_now().await;
                    drop(admitted);
                    done += 1;
                }
                done
            })
        })
        .collect();
    queue.close();
    let mut done = 0;
    for worker in workers {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), worker);
        done += ended.await.expect("a worker still waits").unwrap();
    }
    assert_eq!(done, 5);
    assert_eq!(submit(&queue, "a.example", None).unwrap_err(), Full);
}

fn token_of(admitted: &AdmittedJob) -> &str {
    let requester = &admitted.job().unwrap().request.fetch.requester;
    requester.authorization.as_ref().unwrap().to_str().unwrap()
}

#[tokio::test]
async fn one_tenant_uses_the_whole_queue_until_others_need_it() {
    let queue = Queue::new(16, 4);
    let mut flood: Vec<_> =
        (0..17).map_while(|_| submit(&queue, "a.example", Some("flood")).ok()).collect();
    assert_eq!(flood.len(), 16);
    let _honest = submit(&queue, "a.example", Some("honest")).expect("a place");
    let evicted = flood.pop().unwrap().await.expect("an answer");
    assert!(matches!(evicted, Err(ScanError::Overloaded)));
    let remaining = flood.iter_mut().all(|answer| answer.try_recv().is_err());
    assert!(remaining, "only the newest job is evicted");
    let more: Vec<_> =
        (0..16).map_while(|_| submit(&queue, "a.example", Some("honest")).ok()).collect();
    assert_eq!(more.len(), 7, "each tenant then has eight jobs");
    assert_eq!(submit(&queue, "a.example", Some("flood")).unwrap_err(), Full);
}

#[tokio::test]
async fn ten_tenants_with_fifteen_jobs_each_are_all_served() {
    let queue = Queue::new(256, 32);
    let tokens = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let mut answers = Vec::new();
    for token in tokens {
        answers.extend((0..15).map(|_| submit(&queue, "home.example", Some(token)).unwrap()));
    }
    let mut started = 0;
    while let Some(admitted) = next_now(&queue) {
        drop(admitted);
        started += 1;
    }
    assert_eq!((started, answers.len()), (150, 150));
}

#[tokio::test]
async fn tenants_take_turns_also_with_one_worker() {
    let queue = Queue::new(100, 1);
    let mut answers: Vec<_> =
        (0..3).map(|_| submit(&queue, "a.example", Some("flood")).unwrap()).collect();
    let first = next_now(&queue).unwrap();
    for _ in 0..2 {
        answers.push(submit(&queue, "a.example", Some("honest")).unwrap());
    }
    first.job().unwrap().demotable.set(false);
    drop(first);
    let order: Vec<_> = std::iter::from_fn(|| {
        let admitted = next_now(&queue)?;
        Some(token_of(&admitted).to_owned())
    })
    .collect();
    assert_eq!(order, ["honest", "flood", "honest", "flood"]);
}

#[tokio::test]
async fn sequence_of_new_tenants_does_not_starve_a_waiting_one() {
    let queue = Queue::new(100, 1);
    let mut answers: Vec<_> =
        (0..2).map(|_| submit(&queue, "a.example", Some("waiting")).unwrap()).collect();
    drop(next_now(&queue).unwrap());
    answers.push(submit(&queue, "a.example", Some("new")).unwrap());
    let mut order = Vec::new();
    for token in ["second", "third", "fourth", "fifth"] {
        answers.push(submit(&queue, "a.example", Some(token)).unwrap());
        order.push(token_of(&next_now(&queue).unwrap()).to_owned());
    }
    assert!(order[..3].contains(&"waiting".to_owned()), "{order:?}");
}

#[tokio::test]
async fn downloads_of_the_tenant_with_the_most_jobs_are_demoted_for_others() {
    let queue = Queue::new(100, 4);
    let mut answers: Vec<_> =
        (0..8).map(|_| submit(&queue, "a.example", Some("flood")).unwrap()).collect();
    let mut flood: Vec<_> = std::iter::from_fn(|| next_now(&queue)).collect();
    assert_eq!(flood.len(), 4, "idle workers are used");
    for token in ["one", "two", "three"] {
        answers.push(submit(&queue, "a.example", Some(token)).unwrap());
        assert_eq!(token_of(&next_now(&queue).expect("a download is demoted")), token);
        assert!(next_now(&queue).is_none(), "the demoted download counts again");
    }
    // A scan is not demoted.
    for admitted in &flood {
        admitted.job().unwrap().demotable.set(false);
    }
    answers.push(submit(&queue, "a.example", Some("one")).unwrap());
    assert!(next_now(&queue).is_none());
    flood.pop();
    assert_eq!(token_of(&next_now(&queue).unwrap()), "one");
}

#[tokio::test]
async fn jobs_of_one_address_alternate_by_group() {
    let queue = Queue::new(1000, 32);
    let mut answers: Vec<_> =
        (0..300).map(|_| submit(&queue, "flood.example", None).unwrap()).collect();
    let flood: Vec<_> = std::iter::from_fn(|| next_now(&queue)).collect();
    assert_eq!(flood.len(), 32);
    answers.push(submit(&queue, "other.example", None).unwrap());
    assert_eq!(server_of(&next_now(&queue).expect("a download is demoted")), "other.example");
}

#[tokio::test]
async fn two_floods_leave_a_worker_for_each_of_several_tenants() {
    let queue = Queue::new(1000, 8);
    let mut answers = Vec::new();
    let mut running = Vec::new();
    for token in ["first flood", "second flood"] {
        answers.extend((0..50).map(|_| submit(&queue, "a.example", Some(token)).unwrap()));
        running.extend(std::iter::from_fn(|| next_now(&queue)));
    }
    for token in ["one", "two", "three", "four"] {
        answers.push(submit(&queue, "a.example", Some(token)).unwrap());
        running.push(next_now(&queue).expect("a worker"));
        assert_eq!(token_of(running.last().unwrap()), token);
    }
    assert!(running.len() <= 16, "{} jobs run", running.len());
}

#[tokio::test]
async fn background_jobs_start_after_those_of_clients() {
    let queue = Queue::new(100, 1);
    let mut answers = vec![submit_background(&queue).unwrap()];
    for token in ["one", "two", "one"] {
        answers.push(submit(&queue, "a.example", Some(token)).unwrap());
    }
    answers.push(submit_background(&queue).unwrap());
    let order: Vec<_> = std::iter::from_fn(|| {
        let admitted = next_now(&queue)?;
        Some(token_of(&admitted).to_owned())
    })
    .collect();
    assert_eq!(order, ["one", "two", "one", "service", "service"]);
}

#[tokio::test]
async fn background_jobs_leave_a_worker_free_and_demote_none() {
    let queue = Queue::new(100, 3);
    let mut answers: Vec<_> = (0..3).map(|_| submit_background(&queue).unwrap()).collect();
    let mut running: Vec<_> = std::iter::from_fn(|| next_now(&queue)).collect();
    assert_eq!(running.len(), 2, "one of three workers is free");
    answers.push(submit(&queue, "a.example", Some("client")).unwrap());
    running.push(next_now(&queue).expect("the free worker"));
    assert_eq!(token_of(running.last().unwrap()), "client");
    drop(running.remove(0));
    assert!(next_now(&queue).is_none(), "all but one work, and their downloads are not demoted");
    drop(running.remove(0));
    assert_eq!(token_of(&next_now(&queue).unwrap()), "service");
}

#[tokio::test]
async fn background_jobs_make_room_for_those_of_clients() {
    let queue = Queue::new(2, 1);
    let _client = submit(&queue, "a.example", Some("one")).unwrap();
    let background = submit_background(&queue).unwrap();
    let _other = submit(&queue, "b.example", Some("one")).expect("in place of the background job");
    assert!(matches!(background.await.unwrap(), Err(ScanError::Overloaded)));
    assert_eq!(submit_background(&queue).unwrap_err(), Full, "evicts none");
}

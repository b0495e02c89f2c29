use std::time::Instant;

use tokio::sync::oneshot;

use super::*;
use crate::scan::{
    cache::MediaKey,
    job::{JobOutcome, Progress, no_work},
    request::ScanRequest,
};

type JobReply = oneshot::Receiver<Result<JobOutcome, ScanError>>;

/// Submits a job and returns the receiver of its reply.
fn submit(queue: &Queue, server: &str, token: Option<&'static str>) -> Result<JobReply, Full> {
    let request = ScanRequest::for_test(server, token);
    let (reply, answer) = oneshot::channel();
    let submitted = queue.submit(ScanJob {
        work: no_work(),
        key: MediaKey::from_request(&request),
        request,
        reply,
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
async fn one_server_and_one_token_use_at_most_a_quarter_of_the_queue() {
    let queue = Queue::new(16, 4);
    let of_server: Vec<_> =
        (0..16).map_while(|_| submit(&queue, "flood.example", None).ok()).collect();
    assert_eq!(of_server.len(), 4);
    let servers = ["a.example", "b.example", "c.example", "d.example", "e.example"];
    let mut of_token: Vec<_> =
        servers.iter().map_while(|server| submit(&queue, server, Some("one")).ok()).collect();
    assert_eq!(of_token.len(), 4);
    let _other = submit(&queue, "other.example", Some("two")).expect("other tenants have room");
    // An abandoned job frees its tenant's quota, although the queue itself has room.
    of_token.pop();
    let _again =
        submit(&queue, "e.example", Some("one")).expect("the abandoned job's place is free");
    assert_eq!(queue.len(), 9);
}

#[tokio::test]
async fn case_and_port_of_a_server_name_make_no_other_tenant() {
    let queue = Queue::new(4, 4);
    let _one = submit(&queue, "Flood.Example", None).unwrap();
    for spelling in ["flood.example", "flood.example:443", "FLOOD.example:8448"] {
        assert_eq!(submit(&queue, spelling, None).unwrap_err(), Full, "{spelling}");
    }
    let _other = submit(&queue, "example", None).expect("another server");
}

#[tokio::test]
async fn evicts_the_newest_job_of_the_token_with_the_most_jobs() {
    // All jobs are for one server, as in a flood of requests for one homeserver's media.
    let queue = Queue::new(16, 4);
    let mut flood: Vec<_> =
        (0..4).map(|_| submit(&queue, "home.example", Some("flood")).unwrap()).collect();
    let _honest = submit(&queue, "home.example", Some("honest")).expect("a place");
    let evicted = flood.pop().unwrap().await.expect("an answer");
    assert!(matches!(evicted, Err(ScanError::Overloaded)));
    assert!(
        flood.iter_mut().all(|answer| answer.try_recv().is_err()),
        "only the newest job is evicted"
    );
    let _second =
        submit(&queue, "home.example", Some("honest")).expect("each token then has two jobs");
    assert_eq!(submit(&queue, "home.example", Some("honest")).unwrap_err(), Full);
    assert_eq!(submit(&queue, "home.example", Some("flood")).unwrap_err(), Full);
    assert_eq!(queue.len(), 4);
}

#[tokio::test]
async fn token_without_a_worker_starts_before_a_token_with_one() {
    let queue = Queue::new(100, 8);
    let _flood: Vec<_> =
        (0..4).map(|_| submit(&queue, "home.example", Some("flood")).unwrap()).collect();
    let first = next_now(&queue).unwrap();
    let _second = next_now(&queue).unwrap();
    let _honest = submit(&queue, "home.example", Some("honest")).unwrap();
    assert!(next_now(&queue).is_none(), "the server's quota of workers is used up");
    drop(first);
    let mut next = next_now(&queue).unwrap();
    let job = next.take().unwrap();
    assert_eq!(job.request.fetch.requester.authorization.unwrap(), "honest");
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
    assert!(!queue.jobs.has_no_counts(), "a worker has one job");
    drop(admitted);
    assert!(queue.jobs.has_no_counts());
}

#[tokio::test]
async fn workers_of_a_closed_queue_end_when_the_last_requester_leaves() {
    let queue = Queue::new(16, 4);
    let _started = submit(&queue, "a.example", None).unwrap();
    let admitted = next_now(&queue).unwrap();
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
async fn one_server_occupies_a_quarter_of_the_workers_and_others_start_before_it() {
    let queue = Queue::new(100, 8);
    let mut answers = Vec::new();
    for server in ["slow.example", "slow.example", "slow.example", "quick.example"] {
        answers.push(submit(&queue, server, None).unwrap());
    }
    let first = next_now(&queue).unwrap();
    let second = next_now(&queue).unwrap();
    assert_eq!((server_of(&first), server_of(&second)), ("slow.example", "slow.example"));
    let third = next_now(&queue).unwrap();
    assert_eq!(server_of(&third), "quick.example");
    assert!(next_now(&queue).is_none(), "the third job of the slow server waits");
    assert_eq!(queue.len(), 1);
    let waiter = {
        let queue = queue.clone();
        tokio::spawn(async move { server_of(&queue.next().await.unwrap()).to_owned() })
    };
    tokio::task::yield_now().await;
    drop(first);
    assert_eq!(waiter.await.unwrap(), "slow.example");
}

#[tokio::test]
async fn one_token_occupies_a_quarter_of_the_workers_and_absent_tokens_are_no_tenant() {
    let queue = Queue::new(100, 4);
    let mut answers = Vec::new();
    let jobs = [
        ("a.example", Some("one")),
        ("b.example", Some("one")),
        ("c.example", None),
        ("d.example", None),
    ];
    for (server, token) in jobs {
        answers.push(submit(&queue, server, token).unwrap());
    }
    let started: Vec<_> = std::iter::from_fn(|| next_now(&queue)).collect();
    let servers: Vec<_> = started.iter().map(server_of).collect();
    assert_eq!(servers, ["a.example", "c.example", "d.example"]);
    drop(started);
    assert_eq!(server_of(&next_now(&queue).unwrap()), "b.example");
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

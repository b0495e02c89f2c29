use super::*;
use crate::{
    media::{MediaId, MediaRequest, Origin, Variant},
    scan::{Wants, flight::Flights},
};

type Answer = oneshot::Receiver<Result<Outcome, ScanError>>;

pub(in crate::scan) fn request(server: &str, token: Option<&'static str>) -> ScanRequest {
    ScanRequest {
        fetch: MediaRequest {
            media: MediaId::parse(server, "abc").unwrap(),
            variant: Variant::Original,
            timeout_ms: None,
            origin: Origin::Discovered,
            requester: Requester {
                authorization: token.map(reqwest::header::HeaderValue::from_static),
                ..Requester::default()
            },
        },
        decryption: None,
        wants: Wants::Verdict,
    }
}

/// Does nothing.
pub(in crate::scan) fn idle() -> Work {
    Arc::new(|_| Box::pin(async {}))
}

/// Submits a job; gives its requester's end.
fn submit(queue: &Queue, server: &str, token: Option<&'static str>) -> Result<Answer, Full> {
    let request = request(server, token);
    let (reply, answer) = oneshot::channel();
    let submitted = queue.submit(ScanJob {
        work: idle(),
        key: MediaKey::of(&request),
        request,
        reply,
        progress: Flights::progress_of_nobody(),
        span: tracing::Span::none(),
        accepted: Instant::now(),
        deadline: Instant::now(),
    });
    submitted.map(|()| answer)
}

fn server_of(admitted: &Admitted) -> &str {
    admitted.job.as_ref().unwrap().request.fetch.media.server_name()
}

/// What may begin now, without waiting.
fn next_now(queue: &Queue) -> Option<Admitted> {
    use futures_util::FutureExt;
    queue.next().now_or_never().flatten()
}

#[tokio::test]
async fn a_full_queue_says_so_until_a_worker_or_a_requester_makes_room() {
    let queue = Queue::new(3, 8);
    let _first = submit(&queue, "a.example", None).unwrap();
    let _second = submit(&queue, "b.example", None).unwrap();
    let third = submit(&queue, "c.example", None).unwrap();
    assert_eq!(submit(&queue, "d.example", None).unwrap_err(), Full);
    assert_eq!(queue.len(), 3);
    drop(third);
    let _kept = submit(&queue, "d.example", None).expect("one requester has gone");
    assert_eq!(submit(&queue, "e.example", None).unwrap_err(), Full);
    assert_eq!(server_of(&next_now(&queue).unwrap()), "a.example");
    let _last = submit(&queue, "e.example", None).expect("a worker has taken one");
}

#[tokio::test]
async fn the_smallest_queue_takes_one_job() {
    let queue = Queue::new(1, 1);
    let answer = submit(&queue, "a.example", Some("one")).unwrap();
    assert_eq!(submit(&queue, "b.example", Some("two")).unwrap_err(), Full);
    drop(answer);
    let _answer = submit(&queue, "b.example", Some("two")).expect("nobody wants the other");
    assert_eq!(server_of(&next_now(&queue).unwrap()), "b.example");
}

#[tokio::test]
async fn one_server_and_one_token_fill_a_quarter_of_the_places() {
    let queue = Queue::new(16, 4);
    let of_server: Vec<_> =
        (0..16).map_while(|_| submit(&queue, "flood.example", None).ok()).collect();
    assert_eq!(of_server.len(), 4);
    let servers = ["a.example", "b.example", "c.example", "d.example", "e.example"];
    let mut of_token: Vec<_> =
        servers.iter().map_while(|server| submit(&queue, server, Some("one")).ok()).collect();
    assert_eq!(of_token.len(), 4);
    let _other = submit(&queue, "other.example", Some("two")).expect("a place for others");
    // Whose requester has gone makes room in the lane, though there is room in the queue.
    of_token.pop();
    let _again = submit(&queue, "e.example", Some("one")).expect("a place of its own");
    assert_eq!(queue.len(), 9);
}

#[tokio::test]
async fn letters_and_ports_make_no_other_server() {
    let queue = Queue::new(4, 4);
    let _one = submit(&queue, "Flood.Example", None).unwrap();
    for spelling in ["flood.example", "flood.example:443", "FLOOD.example:8448"] {
        assert_eq!(submit(&queue, spelling, None).unwrap_err(), Full, "{spelling}");
    }
    let _other = submit(&queue, "example", None).expect("another server");
}

#[tokio::test]
async fn who_has_most_gives_way_to_who_has_less() {
    // Of one server, which is where all media of a flood may lie.
    let queue = Queue::new(16, 4);
    let mut flood: Vec<_> =
        (0..4).map(|_| submit(&queue, "home.example", Some("flood")).unwrap()).collect();
    let _honest = submit(&queue, "home.example", Some("honest")).expect("a place");
    let turned_away = flood.pop().unwrap().await.expect("an answer");
    assert!(matches!(turned_away, Err(ScanError::Overloaded)));
    assert!(flood.iter_mut().all(|answer| answer.try_recv().is_err()), "the youngest alone");
    let _second = submit(&queue, "home.example", Some("honest")).expect("two and two");
    assert_eq!(submit(&queue, "home.example", Some("honest")).unwrap_err(), Full);
    assert_eq!(submit(&queue, "home.example", Some("flood")).unwrap_err(), Full);
    assert_eq!(queue.len(), 4);
}

#[tokio::test]
async fn who_holds_no_worker_goes_before_who_holds_one() {
    let queue = Queue::new(100, 8);
    let _flood: Vec<_> =
        (0..4).map(|_| submit(&queue, "home.example", Some("flood")).unwrap()).collect();
    let first = next_now(&queue).unwrap();
    let _second = next_now(&queue).unwrap();
    let _honest = submit(&queue, "home.example", Some("honest")).unwrap();
    assert!(next_now(&queue).is_none(), "the server's workers are held");
    drop(first);
    let mut next = next_now(&queue).unwrap();
    let job = next.take().unwrap();
    assert_eq!(job.request.fetch.requester.authorization.unwrap(), "honest");
}

#[tokio::test]
async fn every_way_out_is_counted() {
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
    assert!(!queue.shared.lock().loads.is_empty(), "one is with a worker");
    drop(admitted);
    assert!(queue.shared.lock().loads.is_empty());
}

#[tokio::test]
async fn workers_of_a_closed_queue_end_when_the_last_requester_goes() {
    let queue = Queue::new(16, 4);
    let _begun = submit(&queue, "a.example", None).unwrap();
    let admitted = next_now(&queue).unwrap();
    let held_up = submit(&queue, "a.example", None).unwrap();
    let wait = || {
        let queue = queue.clone();
        tokio::spawn(async move { queue.next().await.is_none() })
    };
    let workers = [wait(), wait(), wait()];
    tokio::task::yield_now().await;
    queue.close();
    tokio::task::yield_now().await;
    drop(held_up);
    drop(admitted);
    for worker in workers {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), worker);
        assert!(ended.await.expect("a worker waits for what will never come").unwrap());
    }
}

#[tokio::test]
async fn a_job_that_somebody_counted_is_still_found_by_a_worker() {
    let queue = Queue::new(16, 4);
    let worker = {
        let queue = queue.clone();
        tokio::spawn(async move { server_of(&queue.next().await.unwrap()).to_owned() })
    };
    tokio::task::yield_now().await;
    let _answer = submit(&queue, "a.example", None).unwrap();
    assert_eq!(queue.len(), 1);
    let begun = tokio::time::timeout(std::time::Duration::from_secs(10), worker);
    assert_eq!(begun.await.expect("the worker is told").unwrap(), "a.example");
}

#[tokio::test]
async fn one_server_holds_a_quarter_of_the_workers_and_others_overtake_it() {
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
    assert!(next_now(&queue).is_none(), "the third of the slow one waits");
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
async fn one_token_holds_a_quarter_of_the_workers_and_no_token_is_none() {
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
    let begun: Vec<_> = std::iter::from_fn(|| next_now(&queue)).collect();
    let servers: Vec<_> = begun.iter().map(server_of).collect();
    assert_eq!(servers, ["a.example", "c.example", "d.example"]);
    drop(begun);
    assert_eq!(server_of(&next_now(&queue).unwrap()), "b.example");
}

#[tokio::test]
async fn jobs_that_nobody_wants_any_more_are_not_begun() {
    let queue = Queue::new(100, 4);
    drop(submit(&queue, "a.example", None).unwrap());
    let _wanted = submit(&queue, "b.example", None).unwrap();
    assert_eq!(server_of(&next_now(&queue).unwrap()), "b.example");
    assert!(queue.is_empty());
}

#[tokio::test]
async fn a_closed_queue_is_worked_off_and_then_ends_for_every_worker() {
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
        done += ended.await.expect("a worker waits for what will never come").unwrap();
    }
    assert_eq!(done, 5);
    assert_eq!(submit(&queue, "a.example", None).unwrap_err(), Full);
}

//! Who may, for how long, and how often the homeserver is asked.

use std::sync::atomic::{AtomicU16, Ordering};

use reqwest::Url;
use tokio::{net::TcpListener, sync::Semaphore};

use super::*;
use crate::media::{
    MediaId, Origin, Settings,
    fake::{Act, Fake, answer, errcode, redirect, request, settings},
};

const TOKEN: &str = "Bearer a";
const LONG: Duration = Duration::from_secs(3600);

fn authoriser(settings: &Settings, ttl: Duration) -> Authoriser {
    Authoriser::new(Arc::new(Homeservers::new(settings, Arc::default()).unwrap()), ttl)
}

async fn asked_of(act: impl Fn(&str) -> Act + Send + Sync + 'static) -> Result<(), FetchError> {
    let fake = Fake::start(act).await;
    authoriser(&fake.settings(), LONG).check(&request(&fake.url(), Some(TOKEN)), None).await
}

#[tokio::test]
async fn the_question_carries_the_requesters_token_and_the_homeservers_etag() {
    let fake = Fake::start(|_| answer(304, "", "")).await;
    let etag = HeaderValue::from_static("W/\"e\"");
    let authoriser = authoriser(&fake.settings(), LONG);
    authoriser.check(&request(&fake.url(), Some(TOKEN)), Some(&etag)).await.unwrap();
    let head = fake.seen().remove(0);
    assert!(
        head.starts_with("GET /_matrix/client/v1/media/download/example.org/abc HTTP"),
        "{head}"
    );
    assert!(head.contains("\r\nauthorization: Bearer a\r\n"), "{head}");
    assert!(head.contains("\r\nif-none-match: W/\"e\"\r\n"), "{head}");
}

#[tokio::test]
async fn a_media_or_an_address_elsewhere_is_a_yes() {
    for status in [200, 204, 206, 304] {
        asked_of(move |_| answer(status, "", "")).await.unwrap();
    }
    asked_of(|_| redirect("https://cdn.example/x")).await.unwrap();
    // A body without end is not waited for.
    asked_of(|_| Act::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nx".into()))
        .await
        .unwrap();
}

#[tokio::test]
async fn within_the_origin_a_redirect_is_not_yet_an_answer() {
    let no = |head: &str| {
        if head.contains("/end") { errcode(403, "M_FORBIDDEN") } else { redirect("/end") }
    };
    assert!(matches!(asked_of(no).await, Err(FetchError::Refused { status: 403, .. })));
}

#[tokio::test]
async fn everything_else_is_no() {
    assert!(matches!(
        asked_of(|_| errcode(401, "M_UNKNOWN_TOKEN")).await,
        Err(FetchError::UnknownToken)
    ));
    assert!(matches!(asked_of(|_| errcode(404, "M_NOT_FOUND")).await, Err(FetchError::NotFound)));
    assert!(matches!(
        asked_of(|_| answer(429, "", "")).await,
        Err(FetchError::Refused { status: 429, .. })
    ));
    assert!(matches!(
        asked_of(|_| answer(503, "", "")).await,
        Err(FetchError::Upstream { status: 503 })
    ));
    assert!(matches!(asked_of(|_| answer(300, "", "")).await, Err(FetchError::NotMedia(_))));
    assert!(matches!(asked_of(|_| Act::Send(Vec::new())).await, Err(FetchError::Unreachable(_))));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let base: Url = format!("http://{closed}").parse().unwrap();
    let settings = Settings { base_homeserver_url: Some(base.clone()), ..settings() };
    let answer = authoriser(&settings, LONG).check(&request(&base, None), None).await;
    assert!(matches!(answer, Err(FetchError::Unreachable(_))));
}

#[tokio::test]
async fn a_yes_holds_for_the_same_requester_and_media_only() {
    let fake = Fake::start(|_| answer(304, "", "")).await;
    let authoriser = authoriser(&fake.settings(), LONG);
    let first = request(&fake.url(), Some(TOKEN));
    let mut hosted = first.clone();
    hosted.requester.forwarded.insert("host", HeaderValue::from_static("a.example"));
    let others = [
        first.clone(),
        request(&fake.url(), Some("Bearer b")),
        request(&fake.url(), None),
        MediaRequest { media: MediaId::parse("example.org", "abd").unwrap(), ..first.clone() },
        hosted,
    ];
    for _ in 0..2 {
        for request in &others {
            authoriser.check(request, None).await.unwrap();
        }
    }
    assert_eq!(fake.asked().len(), others.len());
}

#[tokio::test]
async fn a_no_is_not_remembered() {
    let status = Arc::new(AtomicU16::new(404));
    let now = Arc::clone(&status);
    let fake = Fake::start(move |_| answer(now.load(Ordering::SeqCst), "", "")).await;
    let authoriser = authoriser(&fake.settings(), LONG);
    let request = request(&fake.url(), Some(TOKEN));
    assert!(matches!(authoriser.check(&request, None).await, Err(FetchError::NotFound)));
    status.store(200, Ordering::SeqCst);
    authoriser.check(&request, None).await.unwrap();
}

#[tokio::test]
async fn a_yes_ends() {
    let fake = Fake::start(|_| answer(304, "", "")).await;
    let request = request(&fake.url(), Some(TOKEN));
    let brief = authoriser(&fake.settings(), Duration::from_nanos(1));
    let none = authoriser(&fake.settings(), Duration::ZERO);
    none.grant(&request);
    for _ in 0..2 {
        brief.check(&request, None).await.unwrap();
        none.check(&request, None).await.unwrap();
    }
    assert_eq!(fake.asked().len(), 4);
}

#[tokio::test]
async fn a_download_authorises_its_token() {
    let fake = Fake::start(|_| answer(404, "", "")).await;
    let authoriser = authoriser(&fake.settings(), LONG);
    let request = request(&fake.url(), Some(TOKEN));
    authoriser.grant(&request);
    authoriser.check(&request, None).await.unwrap();
    assert_eq!(fake.asked().len(), 0);
}

#[tokio::test]
async fn many_at_once_ask_once_and_a_no_is_nobody_elses() {
    let now = Arc::new(AtomicU16::new(0));
    let status = Arc::clone(&now);
    let fake = Fake::start(move |_| answer(status.load(Ordering::SeqCst), "", "")).await;
    let authoriser = authoriser(&fake.settings(), LONG);
    let request = request(&fake.url(), Some(TOKEN));
    for (status, asked) in [(403, 8), (200, 1)] {
        let before = fake.asked().len();
        now.store(status, Ordering::SeqCst);
        let all = (0..8).map(|_| authoriser.check(&request, None));
        let answers = futures_util::future::join_all(all).await;
        assert!(answers.iter().all(|answer| answer.is_ok() == (status == 200)));
        assert_eq!(fake.asked().len() - before, asked);
    }
}

#[tokio::test]
async fn a_server_or_a_token_that_is_waited_for_leaves_turns_for_others() {
    let fake = Fake::start(|head| {
        if head.contains("slow") { Act::Hang(Vec::new()) } else { answer(304, "", "") }
    })
    .await;
    let authoriser = Arc::new(authoriser(&fake.settings(), LONG));
    let of = |server: &str, id: usize, token| MediaRequest {
        media: MediaId::parse(server, &format!("m{id}")).unwrap(),
        ..request(&fake.url(), token)
    };
    let ask = |request: MediaRequest| {
        let authoriser = Arc::clone(&authoriser);
        tokio::spawn(async move { authoriser.check(&request, None).await })
    };
    // Of one server whatever the port, and of one token whatever the server.
    let mut waiting: Vec<_> =
        (0..100).map(|n| ask(of(&format!("slow.example:{}", n + 1), n, None))).collect();
    waiting.extend((0..100).map(|n| ask(of(&format!("slow{n}.example"), n, Some("Bearer flood")))));
    while fake.asked().len() < 2 * MAX_OF_ONE {
        tokio::task::yield_now().await;
    }
    authoriser.check(&of("quick.example", 0, Some(TOKEN)), None).await.unwrap();
    authoriser.check(&of("quick.example", 0, None), None).await.unwrap();
    assert_eq!(fake.asked().len(), 2 * MAX_OF_ONE + 2);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn one_who_goes_away_lets_the_next_one_ask() {
    let asked = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&asked);
    let fake = Fake::start(move |_| {
        told.add_permits(1);
        Act::Hang(Vec::new())
    })
    .await;
    let authoriser = Arc::new(authoriser(&fake.settings(), LONG));
    let request = request(&fake.url(), Some(TOKEN));
    let begin = || {
        let (authoriser, request) = (Arc::clone(&authoriser), request.clone());
        tokio::spawn(async move { authoriser.check(&request, None).await })
    };
    let first = begin();
    asked.acquire().await.unwrap().forget();
    let second = begin();
    first.abort();
    asked.acquire().await.unwrap().forget();
    second.abort();
    assert_eq!(fake.asked().len(), 2);
}

#[tokio::test]
async fn a_discovered_homeserver_is_asked_too() {
    let request = MediaRequest {
        media: MediaId::parse("127.0.0.1", "abc").unwrap(),
        origin: Origin::Discovered,
        ..request(&"http://unused.example".parse().unwrap(), Some(TOKEN))
    };
    let answer = authoriser(&settings(), LONG).check(&request, None).await;
    assert!(matches!(answer, Err(FetchError::ForbiddenAddress(_))));
}

#[tokio::test]
async fn who_is_told_apart_by_a_forwarded_header_is_asked_for_apart() {
    let fake = Fake::start(|head| {
        if head.contains("cookie: no") { errcode(403, "M_FORBIDDEN") } else { answer(200, "", "") }
    })
    .await;
    let authoriser = authoriser(&fake.settings(), LONG);
    let with = |name: &'static str, value: &'static str| {
        let mut request = request(&fake.url(), Some(TOKEN));
        request.requester.forwarded.insert(name, HeaderValue::from_static(value));
        request
    };
    authoriser.check(&with("cookie", "yes"), None).await.unwrap();
    authoriser.check(&with("cookie", "yes"), None).await.unwrap();
    assert_eq!(fake.seen().len(), 1);
    assert!(authoriser.check(&with("cookie", "no"), None).await.is_err());
    // Who walks about is the same person.
    authoriser.check(&with("x-forwarded-for", "192.0.2.1"), None).await.unwrap();
    authoriser.check(&with("x-forwarded-for", "192.0.2.2"), None).await.unwrap();
    assert_eq!(fake.seen().len(), 3);
}

#[test]
fn a_discovered_homeserver_is_asked_once_whatever_tokens_are_made_up() {
    let key_with = |origin: Origin, token| {
        let mut request = request(&"https://example.org".parse().unwrap(), token);
        request.origin = origin;
        key(&request)
    };
    let discovered = |token| key_with(Origin::Discovered, token);
    assert_eq!(discovered(Some("Bearer a")), discovered(Some("Bearer b")));
    let configured = |token| {
        key_with(Origin::Configured(Arc::new("https://example.org".parse().unwrap())), token)
    };
    assert_ne!(configured(Some("Bearer a")), configured(Some("Bearer b")));
    assert_ne!(configured(None), configured(Some("Bearer b")));
}

//! Tests of authorisation, of cached grants and of the number of requests to the homeserver.

use std::sync::atomic::{AtomicU16, Ordering};

use futures_util::{StreamExt, stream::FuturesUnordered};
use reqwest::Url;
use tokio::{net::TcpListener, sync::Semaphore};

use super::*;
use crate::media::{
    MediaId, Origin, Settings,
    fake::{Act, FakeHomeserver, answer, errcode, redirect, request, settings},
};
use crate::{
    memory_bounds::{assert_table_memory, row_bytes},
    tenancy::Tenant,
};

const TOKEN: &str = "Bearer a";
const LONG: Duration = Duration::from_secs(3600);

fn authoriser(settings: &Settings, ttl: Duration) -> Authoriser {
    Authoriser::new(Arc::new(Homeservers::new(settings, Arc::default()).unwrap()), ttl)
}

async fn check_with(act: impl Fn(&str) -> Act + Send + Sync + 'static) -> Result<(), FetchError> {
    let fake = FakeHomeserver::start(act).await;
    let result =
        authoriser(&fake.settings(), LONG).check(&request(&fake.url(), Some(TOKEN)), None).await;
    // The only caller.
    result.map_err(|error| Arc::into_inner(error).unwrap())
}

#[tokio::test]
async fn request_has_token_and_etag() {
    let fake = FakeHomeserver::start(|_| answer(304, "", "")).await;
    let etag = HeaderValue::from_static("W/\"e\"");
    let authoriser = authoriser(&fake.settings(), LONG);
    authoriser.check(&request(&fake.url(), Some(TOKEN)), Some(&etag)).await.unwrap();
    let head = fake.request_heads().remove(0);
    assert!(
        head.starts_with("GET /_matrix/client/v1/media/download/example.org/abc HTTP"),
        "{head}"
    );
    assert!(head.contains("\r\nauthorization: Bearer a\r\n"), "{head}");
    assert!(head.contains("\r\nif-none-match: W/\"e\"\r\n"), "{head}");
}

#[tokio::test]
async fn success_and_cross_origin_redirect_grant() {
    for status in [200, 204, 206, 304] {
        check_with(move |_| answer(status, "", "")).await.unwrap();
    }
    for status in [307, 308] {
        check_with(move |_| answer(status, "location: https://cdn.example/x\r\n", ""))
            .await
            .unwrap();
    }
    // The body is not read.
    check_with(|_| Act::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nx".into()))
        .await
        .unwrap();
}

#[tokio::test]
async fn same_origin_redirect_is_followed() {
    let respond = |head: &str| {
        if head.contains("/end") { errcode(403, "M_FORBIDDEN") } else { redirect("/end") }
    };
    assert!(matches!(check_with(respond).await, Err(FetchError::Refused { status: 403, .. })));
}

#[tokio::test]
async fn redirect_to_a_login_page_grants_nothing() {
    for status in [300, 301, 302, 303, 305] {
        for to in ["https://login.example/", "/login", "http://", ""] {
            let location = format!("location: {to}\r\n");
            // The login page itself answers 200.
            let respond = move |head: &str| {
                if head.contains("/login") {
                    answer(200, "", "")
                } else {
                    answer(status, &location, "")
                }
            };
            let result = check_with(respond).await;
            assert!(matches!(result, Err(FetchError::NotMedia(_))), "{status} {to}");
        }
    }
    // Nor after a redirect that is followed.
    let respond = |head: &str| {
        if head.contains("/end") {
            answer(302, "location: https://login.example/\r\n", "")
        } else {
            redirect("/end")
        }
    };
    assert!(matches!(check_with(respond).await, Err(FetchError::NotMedia(_))));
}

#[tokio::test]
async fn everything_else_refuses() {
    assert!(matches!(
        check_with(|_| errcode(401, "M_UNKNOWN_TOKEN")).await,
        Err(FetchError::UnknownToken)
    ));
    assert!(matches!(check_with(|_| errcode(404, "M_NOT_FOUND")).await, Err(FetchError::NotFound)));
    assert!(matches!(
        check_with(|_| answer(429, "", "")).await,
        Err(FetchError::Refused { status: 429, .. })
    ));
    assert!(matches!(
        check_with(|_| answer(503, "", "")).await,
        Err(FetchError::Upstream { status: 503, .. })
    ));
    assert!(matches!(check_with(|_| answer(300, "", "")).await, Err(FetchError::NotMedia(_))));
    assert!(matches!(check_with(|_| Act::Send(Vec::new())).await, Err(FetchError::Unreachable(_))));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let base: Url = format!("http://{closed}").parse().unwrap();
    let settings = Settings { base_homeserver_url: Some(base.clone()), ..settings() };
    let result = authoriser(&settings, LONG).check(&request(&base, None), None).await;
    assert!(matches!(
        result.map_err(|error| Arc::into_inner(error).unwrap()),
        Err(FetchError::Unreachable(_))
    ));
}

#[tokio::test]
async fn grant_is_cached_per_requester_and_media() {
    let fake = FakeHomeserver::start(|_| answer(304, "", "")).await;
    let authoriser = authoriser(&fake.settings(), LONG);
    let first = request(&fake.url(), Some(TOKEN));
    let mut hosted = first.clone();
    hosted.requester.forwarded.insert("host", HeaderValue::from_static("a.example"));
    let requests = [
        first.clone(),
        request(&fake.url(), Some("Bearer b")),
        request(&fake.url(), None),
        MediaRequest { media: MediaId::parse("example.org", "abd").unwrap(), ..first.clone() },
        hosted,
    ];
    for _ in 0..2 {
        for request in &requests {
            authoriser.check(request, None).await.unwrap();
        }
    }
    assert_eq!(fake.requests().len(), requests.len());
}

#[tokio::test]
async fn refusal_is_not_cached() {
    let status = Arc::new(AtomicU16::new(404));
    let current = Arc::clone(&status);
    let fake = FakeHomeserver::start(move |_| answer(current.load(Ordering::SeqCst), "", "")).await;
    let authoriser = authoriser(&fake.settings(), LONG);
    let request = request(&fake.url(), Some(TOKEN));
    let error = authoriser.check(&request, None).await.unwrap_err();
    assert!(matches!(*error, FetchError::NotFound));
    status.store(200, Ordering::SeqCst);
    authoriser.check(&request, None).await.unwrap();
}

#[tokio::test]
async fn grant_expires() {
    let fake = FakeHomeserver::start(|_| answer(304, "", "")).await;
    let request = request(&fake.url(), Some(TOKEN));
    let short = authoriser(&fake.settings(), Duration::from_nanos(1));
    let uncached = authoriser(&fake.settings(), Duration::ZERO);
    uncached.grant(&request);
    for _ in 0..2 {
        short.check(&request, None).await.unwrap();
        uncached.check(&request, None).await.unwrap();
    }
    assert_eq!(fake.requests().len(), 4);
}

#[tokio::test]
async fn download_grants_its_token() {
    let fake = FakeHomeserver::start(|_| answer(404, "", "")).await;
    let authoriser = authoriser(&fake.settings(), LONG);
    let request = request(&fake.url(), Some(TOKEN));
    authoriser.grant(&request);
    authoriser.check(&request, None).await.unwrap();
    assert_eq!(fake.requests().len(), 0);
}

/// Sends eight concurrent access checks for one media file, which must be answered in order of arrival. Returns the
/// number of requests that the homeserver received.
async fn requests_for_concurrent_checks(status: u16, ttl: Duration) -> usize {
    let fake = FakeHomeserver::start(move |_| answer(status, "", "")).await;
    let authoriser = authoriser(&fake.settings(), ttl);
    let request = request(&fake.url(), Some(TOKEN));
    let (authoriser, request) = (&authoriser, &request);
    let checks = (0..8).map(async |caller| (caller, authoriser.check(request, None).await));
    let answers: Vec<_> = checks.collect::<FuturesUnordered<_>>().collect().await;
    assert!(answers.iter().all(|(_, result)| result.is_ok() == (status == 200)), "{answers:?}");
    let order: Vec<_> = answers.iter().map(|(caller, _)| *caller).collect();
    assert_eq!(order, (0..8).collect::<Vec<_>>(), "{status}");
    fake.requests().len()
}

#[tokio::test]
async fn concurrent_requests_share_results() {
    assert_eq!(requests_for_concurrent_checks(200, LONG).await, 1);
    // The first request may have been sent before the others arrived; the second one answers all of them.
    for (status, ttl) in [(200, Duration::ZERO), (403, LONG), (401, LONG), (500, LONG)] {
        assert_eq!(requests_for_concurrent_checks(status, ttl).await, 2, "{status}");
    }
    // A rate limit may concern one client's address.
    assert_eq!(requests_for_concurrent_checks(429, LONG).await, 8);
}

#[tokio::test]
async fn flood_of_one_tenant_leaves_requests_for_others() {
    let fake = FakeHomeserver::start(|head| {
        if head.contains("slow") { Act::Hang(Vec::new()) } else { answer(304, "", "") }
    })
    .await;
    let authoriser = Arc::new(authoriser(&fake.settings(), LONG));
    let request_to = |id: &str, tenant| {
        let mut request = request(&fake.url(), Some(TOKEN));
        request.media = MediaId::parse("a.example", id).unwrap();
        request.requester.tenant.tenant = Tenant::Token(tenant);
        request
    };
    let waiting: Vec<_> = (0..100)
        .map(|number| {
            let request = request_to(&format!("slow{number}"), 1);
            let authoriser = Arc::clone(&authoriser);
            tokio::spawn(async move { authoriser.check(&request, None).await })
        })
        .collect();
    while fake.requests().len() < MAX_IN_FLIGHT {
        tokio::task::yield_now().await;
    }
    for tenant in 2..5 {
        authoriser.check(&request_to("quick", tenant), None).await.unwrap();
    }
    let slow = fake.request_heads().iter().filter(|head| head.contains("slow")).count();
    assert_eq!(slow, MAX_IN_FLIGHT, "the other requests of the flood wait");
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn next_caller_sends_request_when_first_is_cancelled() {
    let received = Arc::new(Semaphore::new(0));
    let signal = Arc::clone(&received);
    let fake = FakeHomeserver::start(move |_| {
        signal.add_permits(1);
        Act::Hang(Vec::new())
    })
    .await;
    let authoriser = Arc::new(authoriser(&fake.settings(), LONG));
    let request = request(&fake.url(), Some(TOKEN));
    let spawn_check = || {
        let (authoriser, request) = (Arc::clone(&authoriser), request.clone());
        tokio::spawn(async move { authoriser.check(&request, None).await })
    };
    let first = spawn_check();
    received.acquire().await.unwrap().forget();
    let second = spawn_check();
    first.abort();
    received.acquire().await.unwrap().forget();
    second.abort();
    assert_eq!(fake.requests().len(), 2);
}

#[tokio::test]
async fn discovered_homeserver_is_asked() {
    let request = MediaRequest {
        media: MediaId::parse("127.0.0.1", "abc").unwrap(),
        origin: Origin::Discovered,
        ..request(&"http://unused.example".parse().unwrap(), Some(TOKEN))
    };
    let result = authoriser(&settings(), LONG).check(&request, None).await;
    assert!(matches!(
        result.map_err(|error| Arc::into_inner(error).unwrap()),
        Err(FetchError::ForbiddenAddress(_))
    ));
}

#[tokio::test]
async fn forwarded_headers_distinguish_requesters() {
    let fake = FakeHomeserver::start(|head| {
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
    assert_eq!(fake.request_heads().len(), 1);
    assert!(authoriser.check(&with("cookie", "no"), None).await.is_err());
    // The address does not distinguish requesters.
    authoriser.check(&with("x-forwarded-for", "192.0.2.1"), None).await.unwrap();
    authoriser.check(&with("x-forwarded-for", "192.0.2.2"), None).await.unwrap();
    assert_eq!(fake.request_heads().len(), 3);
}

#[test]
fn tokens_do_not_distinguish_requesters_of_discovered_homeserver() {
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

#[test]
fn grants_stay_within_their_memory() {
    let test = "grants_stay_within_their_memory";
    let authoriser = authoriser(&settings(), LONG);
    let mut request = request(&"http://home.example".parse().unwrap(), None);
    assert_table_memory(module_path!(), test, row_bytes("grants"), || {
        for number in 0..CAPACITY + CAPACITY / 4 {
            let token = HeaderValue::from_str(&format!("Bearer {number}"));
            request.requester.authorization = Some(token.unwrap());
            authoriser.grant(&request);
        }
        authoriser
    });
}

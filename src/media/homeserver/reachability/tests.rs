//! Tests of what requests and checks record about configured homeservers.

use reqwest::header::HeaderValue;

use super::*;
use crate::media::{CHECK_INTERVAL, MediaResponses, Settings, fake::*, tests::TOKEN};

fn homeservers(settings: &Settings) -> Homeservers {
    Homeservers::new(settings, Arc::default()).unwrap()
}

fn status(homeservers: &Homeservers) -> Arc<HomeserverStatus> {
    let [status] = homeservers.statuses().try_into().unwrap();
    status
}

/// Requests `mxc://example.org/abc`.
async fn fetch(homeservers: &Homeservers, base: &Url, token: Option<&'static str>) {
    let _ = homeservers.open(&request(base, token)).await;
}

fn responses(recognized: u64, unrecognized: u64) -> MediaResponses {
    MediaResponses { recognized, unrecognized }
}

#[tokio::test]
async fn requests_show_reachability_and_unknown_routes() {
    let fake = FakeHomeserver::start(|head| match head {
        _ if head.contains("/client/v1/") => errcode(404, "M_UNRECOGNIZED"),
        _ if head.contains("/media/v3/") => answer(404, "", "<html>"),
        _ => errcode(404, "M_NOT_FOUND"),
    })
    .await;
    let homeservers = homeservers(&fake.settings());
    let status = status(&homeservers);
    assert_eq!(status.name(), fake.address.to_string());
    assert_eq!(status.is_reachable(), None);
    fetch(&homeservers, &fake.url(), Some(TOKEN)).await;
    fetch(&homeservers, &fake.url(), None).await;
    assert_eq!(status.is_reachable(), Some(true));
    let expected =
        [("client_v1", responses(0, 1)), ("v3", responses(0, 2)), ("r0", responses(2, 0))];
    assert_eq!(status.media_responses(), expected);
    let url = fake.url();
    drop(fake);
    fetch(&homeservers, &url, Some(TOKEN)).await;
    assert_eq!(status.is_reachable(), Some(false));
    assert_eq!(status.media_responses(), expected);
}

#[tokio::test]
async fn slow_media_is_no_outage() {
    let fake = FakeHomeserver::start(|_| Act::Hang(Vec::new())).await;
    let settings = Settings { idle_timeout: Duration::from_millis(50), ..fake.settings() };
    let homeservers = homeservers(&settings);
    fetch(&homeservers, &fake.url(), Some(TOKEN)).await;
    assert_eq!(fake.requests().len(), 1);
    assert_eq!(status(&homeservers).is_reachable(), None);
}

#[tokio::test]
async fn check_asks_homeservers_without_recent_responses() {
    let fake = FakeHomeserver::start(|_| answer(502, "", "")).await;
    let mut settings = fake.settings();
    settings.additional_headers.insert("x-gateway", HeaderValue::from_static("yes"));
    // The same homeserver, by another path.
    settings.homeservers = vec![("a.example".to_owned(), fake.url().join("/base/").unwrap())];
    let homeservers = homeservers(&settings);
    let status = status(&homeservers);
    homeservers.check_reachability(CHECK_INTERVAL).await;
    assert_eq!(status.is_reachable(), Some(true));
    homeservers.check_reachability(CHECK_INTERVAL).await;
    let [head] = fake.request_heads().try_into().unwrap();
    assert!(head.contains("_matrix/client/versions HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("x-gateway: yes\r\n") && !head.contains("authorization"), "{head}");
    homeservers.check_reachability(Duration::ZERO).await;
    assert_eq!(fake.requests().len(), 2);
    // Media was not requested.
    assert!(status.media_responses().iter().all(|(_, number)| *number == responses(0, 0)));
    drop(fake);
    homeservers.check_reachability(Duration::ZERO).await;
    assert_eq!(status.is_reachable(), Some(false));
}

#[tokio::test]
async fn homeserver_that_accepts_connections_and_hangs_is_unreachable() {
    let fake = FakeHomeserver::start(|_| Act::Hang(Vec::new())).await;
    let homeservers = Arc::new(homeservers(&fake.settings()));
    let checked = Arc::clone(&homeservers);
    let check = tokio::spawn(async move { checked.check_reachability(CHECK_INTERVAL).await });
    while fake.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::pause();
    check.await.unwrap();
    assert_eq!(status(&homeservers).is_reachable(), Some(false));
}

#[tokio::test]
async fn reload_keeps_what_requests_have_shown() {
    let fake = FakeHomeserver::start(|_| errcode(404, "M_UNRECOGNIZED")).await;
    let (settings, counters) = (fake.settings(), Arc::default());
    let before = Homeservers::new(&settings, Arc::clone(&counters)).unwrap();
    fetch(&before, &fake.url(), Some(TOKEN)).await;
    let after = Homeservers::new(&settings, Arc::clone(&counters)).unwrap();
    assert_eq!(status(&after).is_reachable(), Some(true));
    assert_eq!(status(&after).media_responses(), status(&before).media_responses());
    // A homeserver that is not configured any more is not shown.
    let others = Settings { base_homeserver_url: None, ..settings };
    assert!(Homeservers::new(&others, counters).unwrap().statuses().is_empty());
}

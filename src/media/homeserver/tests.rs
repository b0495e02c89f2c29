//! Tests of the selection of homeservers and routes, and of error responses.

use bytes::Bytes;
use tokio::net::TcpListener;

use super::*;
use crate::media::{fake::*, tests::*, *};

#[tokio::test]
async fn tries_older_routes_without_token() {
    let fake = FakeHomeserver::start(|head| match head {
        _ if head.contains("/client/v1/") => errcode(404, "M_UNRECOGNIZED"),
        _ if head.contains("/media/v3/") => errcode(405, "M_UNRECOGNIZED"),
        _ => answer(200, "", "x"),
    })
    .await;
    fetch(&fake.settings(), &request(&fake.url(), Some(TOKEN))).await.unwrap();
    assert_eq!(
        fake.requests(),
        [
            "GET /_matrix/client/v1/media/download/example.org/abc",
            "GET /_matrix/media/v3/download/example.org/abc",
            "GET /_matrix/media/r0/download/example.org/abc",
        ]
    );
    let with_token: Vec<_> =
        fake.request_heads().iter().map(|head| head.contains("secret")).collect();
    assert_eq!(with_token, [true, false, false]);
}

#[tokio::test]
async fn status_404_tries_next_route_only_without_token() {
    let fake = FakeHomeserver::start(|_| errcode(404, "M_NOT_FOUND")).await;
    assert_error!(
        fetch(&fake.settings(), &request(&fake.url(), Some(TOKEN))).await,
        FetchError::NotFound
    );
    assert_eq!(fake.requests().len(), 1);
    assert_error!(fetch(&fake.settings(), &request(&fake.url(), None)).await, FetchError::NotFound);
    assert_eq!(fake.requests().len(), 3);
}

#[tokio::test]
async fn url_has_prefix_and_parameters() {
    let fake = FakeHomeserver::start(|_| answer(200, "", "x")).await;
    let base = fake.url().join("/pre%20fix/hs/?q=1#f").unwrap();
    let settings = Settings { base_homeserver_url: Some(base.clone()), ..settings() };
    let thumbnail = Thumbnail {
        width: Some(64),
        height: None,
        method: Some(ThumbnailMethod::Crop),
        animated: Some(true),
    };
    let request = MediaRequest {
        media: MediaId::parse("[2001:db8::1]:8448", "a_b-C").unwrap(),
        variant: Variant::Thumbnail(thumbnail),
        timeout_ms: Some(20_000),
        ..request(&base, Some(TOKEN))
    };
    fetch(&settings, &request).await.unwrap();
    let original = MediaRequest { variant: Variant::Original, ..request.clone() };
    fetch(&settings, &original).await.unwrap();
    assert_eq!(
        fake.requests(),
        [
            "GET /pre%20fix/hs/_matrix/client/v1/media/thumbnail/%5B2001:db8::1%5D:8448/a_b-C\
             ?width=64&method=crop&animated=true&timeout_ms=20000",
            "GET /pre%20fix/hs/_matrix/client/v1/media/download/%5B2001:db8::1%5D:8448/a_b-C?timeout_ms=20000",
        ]
    );
}

#[tokio::test]
async fn rejects_status_other_than_200() {
    for status in [201, 202, 203, 204, 206, 300, 304, 305, 399] {
        assert_error!(fetch_from(move |_| answer(status, "", "")).await, FetchError::NotMedia(_));
    }
    assert_error!(
        fetch_from(|_| Act::Send(
            b"HTTP/1.1 101 x\r\nupgrade: y\r\nconnection: upgrade\r\n\r\n".into()
        ))
        .await,
        FetchError::NotMedia(_)
    );
}

#[tokio::test]
async fn maps_error_responses() {
    assert_error!(fetch_from(|_| errcode(401, "M_MISSING_TOKEN")).await, FetchError::MissingToken);
    assert_error!(fetch_from(|_| answer(401, "", "")).await, FetchError::UnknownToken);
    assert_error!(fetch_from(|_| errcode(404, "M_NOT_FOUND")).await, FetchError::NotFound);
    assert_error!(
        fetch_from(|_| errcode(403, "M_FORBIDDEN")).await,
        FetchError::Refused { status: 403, .. }
    );
    assert_error!(
        fetch_from(|_| answer(429, "retry-after: 17\r\n", "")).await,
        FetchError::Refused { status: 429, retry_after: Some(after) } if after.as_secs() == 17
    );
    for status in [429, 503] {
        let body = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"x","retry_after_ms":2001}"#;
        assert_error!(
            fetch_from(move |_| answer(status, "", body)).await,
            FetchError::Refused { retry_after: Some(after), .. }
            | FetchError::Upstream { retry_after: Some(after), .. } if after.as_secs() == 3
        );
    }
    assert_error!(
        fetch_from(|_| errcode(504, "M_NOT_YET_UPLOADED")).await,
        FetchError::NotYetUploaded
    );
    for status in [500, 502, 503, 504] {
        assert_error!(
            fetch_from(move |_| answer(status, "", "<html>secret")).await,
            FetchError::Upstream { status: s, .. } if s == status
        );
    }
}

#[tokio::test]
async fn endless_error_body_is_cut_off() {
    let endless = b"HTTP/1.1 404 x\r\n\r\n".to_vec();
    let drip = move |_: &str| Act::Drip(endless.clone(), vec![b'{'; 16 * 1024], Duration::ZERO);
    assert_error!(fetch_from(drip).await, FetchError::NotFound);
}

#[tokio::test]
async fn closed_port_is_unreachable() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let base: Url = format!("http://{closed}").parse().unwrap();
    let settings = Settings { base_homeserver_url: Some(base.clone()), ..settings() };
    assert_error!(fetch(&settings, &request(&base, Some(TOKEN))).await, FetchError::Unreachable(_));
}

#[tokio::test]
async fn rejects_invalid_http() {
    assert_error!(
        fetch_from(|_| Act::Send(b"secret \0\xff\r\n\r\n".into())).await,
        FetchError::Unreachable(_)
    );
    assert_error!(fetch_from(|_| Act::Send(Vec::new())).await, FetchError::Unreachable(_));
    assert_error!(
        fetch_from(|_| Act::Send(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".into()
        ))
        .await,
        FetchError::Unreachable(_)
    );
}

#[tokio::test]
async fn missing_headers_time_out() {
    let fake = FakeHomeserver::start(|_| Act::Hang(b"HTTP/1.1 200 OK\r\n".into())).await;
    let settings = Settings { idle_timeout: Duration::from_millis(100), ..fake.settings() };
    assert_error!(fetch(&settings, &request(&fake.url(), None)).await, FetchError::TimedOut(_));
}

fn homeservers(base: Option<&str>, map: &[(&str, &str)]) -> Homeservers {
    let settings = Settings {
        base_homeserver_url: base.map(|url| url.parse().unwrap()),
        homeservers: map.iter().map(|(h, url)| ((*h).to_owned(), url.parse().unwrap())).collect(),
        ..settings()
    };
    Homeservers::new(&settings, Arc::default()).unwrap()
}

fn selected(homeservers: &Homeservers, host: Option<&str>) -> String {
    match homeservers.origin_for_host(host) {
        None => "none".to_owned(),
        Some(Origin::Discovered) => "discovered".to_owned(),
        Some(Origin::Configured(url)) => url.to_string(),
    }
}

#[test]
fn selects_homeserver_by_host() {
    let map = &[
        ("a.example", "http://a/"),
        ("a.example:8448", "http://a-8448/x/"),
        ("[::1]", "http://six"),
    ];
    let mapped = homeservers(None, map);
    for (host, url) in [
        (Some("a.example"), "http://a/"),
        (Some("A.Example"), "http://a/"),
        (Some("a.example:443"), "http://a/"),
        (Some("a.example:8448"), "http://a-8448/x"),
        (Some("[::1]"), "http://six/"),
        (Some("[::1]:80"), "http://six/"),
        (Some("b.example"), "none"),
        (Some(""), "none"),
        (Some(":"), "none"),
        (None, "none"),
    ] {
        assert_eq!(selected(&mapped, host), url, "{host:?}");
    }
    let both = homeservers(Some("http://base/"), map);
    assert_eq!(selected(&both, Some("a.example")), "http://a/");
    assert_eq!(selected(&both, Some("b.example")), "http://base/");
    assert_eq!(selected(&both, None), "http://base/");
    assert_eq!(selected(&homeservers(None, &[]), Some("a.example")), "discovered");
}

#[test]
fn rejects_base_url_with_password_and_hides_it() {
    let settings = Settings {
        base_homeserver_url: Some("http://me:hidden@hs.example".parse().unwrap()),
        ..settings()
    };
    let error = Homeservers::new(&settings, Arc::default()).err().unwrap();
    assert!(matches!(error, OutboundSetupError::Credentials(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hidden"));
}

#[test]
fn rejects_file_without_certificates() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    for path in [empty.path(), std::path::Path::new("/nonexistent/ca.pem")] {
        let settings = Settings { ca_certificates: Some(path.to_owned()), ..settings() };
        let error = Homeservers::new(&settings, Arc::default()).err().unwrap();
        assert!(matches!(error, OutboundSetupError::Certificates { .. }), "{error:?}");
    }
}

#[test]
fn stored_header_is_bounded_and_copied() {
    let buffer = Bytes::from(vec![b'a'; 8192]);
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_maybe_shared(buffer.slice(..MAX_HEADER_VALUE)).unwrap();
    headers.insert(header::ETAG, value);
    let stored = single_value(&headers, &header::ETAG, MAX_HEADER_VALUE).unwrap();
    assert_eq!(stored.len(), MAX_HEADER_VALUE);
    drop(headers);
    assert!(buffer.is_unique(), "the stored value keeps the buffer");

    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_bytes(&[b'a'; MAX_HEADER_VALUE + 1]).unwrap();
    headers.insert(header::ETAG, value);
    assert!(single_value(&headers, &header::ETAG, MAX_HEADER_VALUE).is_none());
}

#[tokio::test]
async fn rejects_transfer_codings_other_than_chunked() {
    let respond = |coding: &'static str| {
        move |_: &str| {
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{coding}\r\n");
            Act::Send([head.as_bytes(), b"1\r\nx\r\n0\r\n\r\n"].concat())
        }
    };
    for coding in ["transfer-encoding: chunked\r\n", "Transfer-Encoding: Chunked\r\n"] {
        assert_eq!(fetch_from(respond(coding)).await.unwrap(), b"x");
    }
    for coding in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: xchunked\r\n",
    ] {
        assert_error!(fetch_from(respond(coding)).await, FetchError::NotMedia(_));
    }
}

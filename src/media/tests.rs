//! Helpers for the tests of `media`, and tests of the cache key of a request.

use std::sync::Arc;

use reqwest::{Url, header::HeaderValue};

use super::{
    error::IngestError,
    fake::{Act, FakeHomeserver, request},
    *,
};

pub(super) const TOKEN: &str = "Bearer syt_secret";

pub(super) async fn open(
    settings: &Settings,
    request: &MediaRequest,
) -> Result<Download, FetchError> {
    Homeservers::new(settings, Arc::default()).unwrap().open(request).await
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of `Ingest::write`")]
pub(super) fn collect(all: &mut Vec<u8>, bytes: &[u8]) -> Result<(), IngestError> {
    all.extend_from_slice(bytes);
    Ok(())
}

pub(super) async fn fetch(
    settings: &Settings,
    request: &MediaRequest,
) -> Result<Vec<u8>, FetchError> {
    open(settings, request).await?.stream_into(Vec::new(), collect, Ok).await
}

/// Fetches `mxc://example.org/abc` with a token from a homeserver that handles all requests with `act`.
pub(super) async fn fetch_from(
    act: impl Fn(&str) -> Act + Send + Sync + 'static,
) -> Result<Vec<u8>, FetchError> {
    let fake = FakeHomeserver::start(act).await;
    fetch(&fake.settings(), &request(&fake.url(), Some(TOKEN))).await
}

/// Formats everything of an error that may be logged, and asserts that it contains no secret.
pub(super) fn full_text(error: &FetchError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.extend(["\n", &cause.to_string()]);
        source = cause.source();
    }
    assert!(!text.contains("secret"), "{text}");
    text
}

macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        match $result {
            Err(error) => {
                let text = full_text(&error);
                assert!(matches!(error, $pattern $(if $guard)?), "{text}");
            }
            Ok(_) => panic!("expected {}", stringify!($pattern)),
        }
    };
}

/// Returns a request with every kind of header that must not be sent to another origin.
pub(super) fn with_secrets(base: &Url) -> MediaRequest {
    let mut request = request(base, Some(TOKEN));
    for (name, value) in [
        ("cookie", "secret-cookie"),
        ("host", "secret-host.example"),
        ("authorization", "secret-forwarded"),
        ("range", "bytes=0-1"),
        ("if-none-match", "secret-etag"),
        ("accept-encoding", "br"),
        ("content-length", "7"),
    ] {
        request.requester.forwarded.insert(name, HeaderValue::from_static(value));
    }
    request
}

pub(super) use assert_error;

#[test]
fn key_contains_everything_except_requester() {
    let base: Url = "https://hs.example".parse().unwrap();
    let key = |request: &MediaRequest| {
        let mut key = Vec::new();
        request.feed_key(|part| key.extend_from_slice(part));
        key
    };
    let plain = request(&base, None);
    let thumbnail = |width, height| MediaRequest {
        variant: Variant::Thumbnail(Thumbnail { width, height, ..Thumbnail::default() }),
        ..plain.clone()
    };
    let mut hosted = plain.clone();
    hosted.requester.forwarded.insert("host", HeaderValue::from_static("a.example"));
    let different = [
        plain.clone(),
        hosted,
        request(&"https://hs.example/x".parse().unwrap(), None),
        MediaRequest { origin: Origin::Discovered, ..plain.clone() },
        MediaRequest { media: MediaId::parse("example.orga", "bc").unwrap(), ..plain.clone() },
        MediaRequest { media: MediaId::parse("Example.org", "abc").unwrap(), ..plain.clone() },
        thumbnail(None, None),
        thumbnail(Some(1), None),
        thumbnail(None, Some(1)),
        thumbnail(Some(0), None),
        thumbnail(Some(11), None),
        thumbnail(Some(1), Some(1)),
    ];
    for (i, a) in different.iter().enumerate() {
        for (j, b) in different.iter().enumerate() {
            assert_eq!(key(a) == key(b), i == j, "{a:?} {b:?}");
        }
    }
    let mut same = MediaRequest {
        timeout_ms: Some(1),
        requester: Requester {
            authorization: Some(HeaderValue::from_static(TOKEN)),
            ..Requester::default()
        },
        ..plain.clone()
    };
    same.requester.forwarded.insert("cookie", HeaderValue::from_static("x"));
    assert_eq!(key(&same), key(&plain));
}

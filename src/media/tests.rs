//! What the tests of this folder share, and the key of a request.

use super::{
    fake::{Act, Fake, request},
    intake::IntakeError,
    *,
};

pub(super) const TOKEN: &str = "Bearer syt_secret";

pub(super) async fn open(
    settings: &Settings,
    request: &MediaRequest,
) -> Result<Opened, FetchError> {
    Homeservers::new(settings, Arc::default()).unwrap().open(request).await
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of `Intake::write`")]
pub(super) fn collect(all: &mut Vec<u8>, bytes: &[u8]) -> Result<(), IntakeError> {
    all.extend_from_slice(bytes);
    Ok(())
}

pub(super) async fn fetch(
    settings: &Settings,
    request: &MediaRequest,
) -> Result<Vec<u8>, FetchError> {
    open(settings, request).await?.stream_into(Vec::new(), collect, Ok).await
}

/// Fetches `mxc://example.org/abc` with a token from a homeserver that always answers so.
pub(super) async fn fetch_from(
    act: impl Fn(&str) -> Act + Send + Sync + 'static,
) -> Result<Vec<u8>, FetchError> {
    let fake = Fake::start(act).await;
    fetch(&fake.settings(), &request(&fake.url(), Some(TOKEN))).await
}

/// All of an error that may be logged, without the token or its like.
pub(super) fn told(error: &FetchError) -> String {
    let mut told = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(this) = cause {
        told.extend(["\n", &this.to_string()]);
        cause = this.source();
    }
    assert!(!told.contains("secret"), "{told}");
    told
}

macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        match $result {
            Err(error) => {
                let told = told(&error);
                assert!(matches!(error, $pattern $(if $guard)?), "{told}");
            }
            Ok(_) => panic!("expected {}", stringify!($pattern)),
        }
    };
}

/// A request with every kind of header that must not leave its origin.
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
fn a_requester_is_not_in_the_key_and_all_else_is() {
    let base: Url = "https://hs.example".parse().unwrap();
    let key = |request: &MediaRequest| {
        let mut key = Vec::new();
        request.feed_key(|part| key.extend_from_slice(part));
        key
    };
    let plain = request(&base, None);
    let thumbnail = |width: Option<&str>, height: Option<&str>| MediaRequest {
        variant: Variant::Thumbnail(Thumbnail {
            width: width.map(Into::into),
            height: height.map(Into::into),
            ..Thumbnail::default()
        }),
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
        thumbnail(Some("1"), None),
        thumbnail(None, Some("1")),
        thumbnail(Some(""), None),
        thumbnail(Some("11"), None),
        thumbnail(Some("1"), Some("1")),
    ];
    for (i, a) in different.iter().enumerate() {
        for (j, b) in different.iter().enumerate() {
            assert_eq!(key(a) == key(b), i == j, "{a:?} {b:?}");
        }
    }
    let mut same = MediaRequest {
        timeout_ms: Some("1".into()),
        requester: Requester {
            authorization: Some(HeaderValue::from_static(TOKEN)),
            ..Requester::default()
        },
        ..plain.clone()
    };
    same.requester.forwarded.insert("cookie", HeaderValue::from_static("x"));
    assert_eq!(key(&same), key(&plain));
}

//! One homeserver, one fault, one error each.

use std::{
    future::Future,
    io::Write as _,
    sync::{Arc, Mutex},
};

use reqwest::{Url, header::HeaderValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::media::{
    MediaId, Origin, Requester, Settings, Thumbnail, Variant,
    fake::{Act, Fake, answer, bytes, errcode, redirect, request, settings, tls},
};

const TOKEN: &str = "Bearer syt_secret";

async fn open(settings: &Settings, request: &MediaRequest) -> Result<Opened, FetchError> {
    Homeservers::new(settings).unwrap().open(request).await
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of `Intake::write`")]
fn collect(all: &mut Vec<u8>, bytes: &[u8]) -> Result<(), IntakeError> {
    all.extend_from_slice(bytes);
    Ok(())
}

async fn fetch(settings: &Settings, request: &MediaRequest) -> Result<Vec<u8>, FetchError> {
    open(settings, request).await?.stream_into(Vec::new(), collect).await
}

/// Fetches `mxc://example.org/abc` with a token from a homeserver that always answers so.
async fn fetch_from(
    act: impl Fn(&str) -> Act + Send + Sync + 'static,
) -> Result<Vec<u8>, FetchError> {
    let fake = Fake::start(act).await;
    fetch(&fake.settings(), &request(&fake.url(), Some(TOKEN))).await
}

/// All of an error that may be logged, without the token or its like.
fn told(error: &FetchError) -> String {
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

#[tokio::test]
async fn a_media_comes_with_its_headers_and_its_bytes() {
    let body: Vec<u8> = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
    let sent = body.clone();
    let fake = Fake::start(move |_| {
        answer(
            200,
            "content-type: image/png\r\netag: \"e\"\r\ncontent-disposition: inline\r\n",
            &sent,
        )
    })
    .await;
    let opened = open(&fake.settings(), &request(&fake.url(), Some(TOKEN))).await.unwrap();
    assert_eq!(opened.head.content_type, Some(HeaderValue::from_static("image/png")));
    assert_eq!(opened.head.etag, Some(HeaderValue::from_static("\"e\"")));
    assert_eq!(opened.head.disposition, Some(HeaderValue::from_static("inline")));
    assert_eq!(opened.head.length, Some(1_000_003));
    assert_eq!(opened.stream_into(Vec::new(), collect).await.unwrap(), body);
    let head = fake.seen().remove(0).to_ascii_lowercase();
    assert!(head.starts_with("get /_matrix/client/v1/media/download/example.org/abc http/1.1\r\n"));
    assert!(head.contains("\r\nauthorization: bearer syt_secret\r\n"), "{head}");
    assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
    assert!(head.contains("\r\nuser-agent: matrix-content-scanner/"), "{head}");
    assert!(!head.contains("referer") && !head.contains("cookie"), "{head}");
}

#[tokio::test]
async fn doubled_headers_are_as_good_as_none() {
    let twice = "content-type: a/b\r\ncontent-type: a/b\r\netag: a\r\netag: b\r\n";
    let fake = Fake::start(move |_| answer(200, twice, "x")).await;
    let opened = open(&fake.settings(), &request(&fake.url(), None)).await.unwrap();
    assert_eq!((opened.head.content_type, opened.head.etag), (None, None));
}

#[tokio::test]
async fn chunked_and_empty_bodies_are_whole() {
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
    assert_eq!(fetch_from(|_| Act::Send(chunked.into())).await.unwrap(), b"abcd");
    assert_eq!(fetch_from(|_| answer(200, "", "")).await.unwrap(), b"");
}

#[tokio::test]
async fn nothing_but_a_200_is_media() {
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
async fn refusals_keep_their_meaning() {
    assert_error!(fetch_from(|_| errcode(401, "M_MISSING_TOKEN")).await, FetchError::MissingToken);
    assert_error!(fetch_from(|_| answer(401, "", "")).await, FetchError::UnknownToken);
    assert_error!(fetch_from(|_| errcode(404, "M_NOT_FOUND")).await, FetchError::NotFound);
    assert_error!(
        fetch_from(|_| errcode(403, "M_FORBIDDEN")).await,
        FetchError::Refused { status: 403, .. }
    );
    assert_error!(
        fetch_from(|_| answer(429, "retry-after: 17\r\n", "")).await,
        FetchError::Refused { status: 429, retry_after: Some(after) } if after == "17"
    );
    assert_error!(
        fetch_from(|_| errcode(504, "M_NOT_YET_UPLOADED")).await,
        FetchError::NotYetUploaded
    );
    for status in [500, 502, 503, 504] {
        assert_error!(
            fetch_from(move |_| answer(status, "", "<html>secret")).await,
            FetchError::Upstream { status: s } if s == status
        );
    }
}

#[tokio::test]
async fn an_error_body_without_end_is_not_waited_for() {
    let endless = b"HTTP/1.1 404 x\r\n\r\n".to_vec();
    let drip = move |_: &str| Act::Drip(endless.clone(), vec![b'{'; 16 * 1024], Duration::ZERO);
    assert_error!(fetch_from(drip).await, FetchError::NotFound);
}

#[tokio::test]
async fn a_homeserver_that_is_not_there_is_unreachable() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let base: Url = format!("http://{closed}").parse().unwrap();
    let settings = Settings { base_homeserver_url: Some(base.clone()), ..settings() };
    assert_error!(fetch(&settings, &request(&base, Some(TOKEN))).await, FetchError::Unreachable(_));
}

#[tokio::test]
async fn garbage_is_no_answer() {
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
async fn a_homeserver_that_hangs_before_its_headers_times_out() {
    let fake = Fake::start(|_| Act::Hang(b"HTTP/1.1 200 OK\r\n".into())).await;
    let settings = Settings { idle_timeout: Duration::from_millis(100), ..fake.settings() };
    assert_error!(fetch(&settings, &request(&fake.url(), None)).await, FetchError::TimedOut(_));
}

#[tokio::test]
async fn a_homeserver_that_hangs_in_its_body_times_out() {
    let mut half = bytes(200, "", "abcd");
    half.truncate(half.len() - 2);
    let fake = Fake::start(move |_| Act::Hang(half.clone())).await;
    let settings = Settings { idle_timeout: Duration::from_millis(200), ..fake.settings() };
    assert_error!(
        fetch(&settings, &request(&fake.url(), None)).await,
        FetchError::TimedOut("the body stopped coming")
    );
}

fn dripping(pace: Duration) -> impl Fn(&str) -> Act + Send + Sync + 'static {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec();
    move |_| Act::Drip(head.clone(), b"x".to_vec(), pace)
}

#[tokio::test]
async fn a_body_that_drips_for_ever_ends_with_the_total_time() {
    let fake = Fake::start(dripping(Duration::from_millis(5))).await;
    let settings = Settings { total_timeout: Duration::from_millis(200), ..fake.settings() };
    assert_error!(
        fetch(&settings, &request(&fake.url(), None)).await,
        FetchError::TimedOut("the whole took too long")
    );
}

#[tokio::test]
async fn a_body_slower_than_the_least_rate_is_given_up() {
    let fake = Fake::start(dripping(Duration::from_millis(5))).await;
    let mut homeservers =
        Homeservers::new(&Settings { min_rate: 100_000, ..fake.settings() }).unwrap();
    homeservers.limits.rate_window = Duration::from_millis(100);
    let opened = homeservers.open(&request(&fake.url(), None)).await.unwrap();
    assert_error!(
        opened.stream_into(Vec::new(), collect).await,
        FetchError::TimedOut("the body came too slowly")
    );
}

#[test]
fn a_rate_is_judged_by_windows_of_waiting() {
    let limits = Limits {
        max_size: 0,
        idle_timeout: Duration::ZERO,
        total_timeout: Duration::ZERO,
        min_rate: 1024,
        rate_window: Duration::from_secs(30),
    };
    let mut pace = Pace::new(&limits);
    pace.count(Duration::from_secs(29), 0).unwrap();
    pace.count(Duration::from_secs(1), 30 * 1024).unwrap();
    pace.count(Duration::from_secs(29), 1).unwrap();
    pace.count(Duration::from_secs(1), 1).unwrap_err();
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_broken_off() {
    for short in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc",
    ] {
        assert_error!(fetch_from(|_| Act::Send(short.into())).await, FetchError::BrokenOff(_));
    }
}

#[tokio::test]
async fn what_follows_the_announced_length_is_not_the_body() {
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef";
    assert_eq!(fetch_from(|_| Act::Send(long.into())).await.unwrap(), b"abc");
}

#[tokio::test]
async fn too_large_is_said_before_the_body_and_counted_during_it() {
    let fake = Fake::start(|head| {
        let body = [b'x'; 100];
        match head.contains("abc") {
            true => Act::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n".into()),
            false => Act::Send([b"HTTP/1.1 200 OK\r\n\r\n", &body[..]].concat()),
        }
    })
    .await;
    let settings = Settings { max_size: 100, ..fake.settings() };
    let announced = request(&fake.url(), None);
    assert_error!(open(&settings, &announced).await, FetchError::TooLarge { limit: 100 });

    let unannounced = MediaRequest { media: MediaId::parse("a", "b").unwrap(), ..announced };
    assert_eq!(fetch(&settings, &unannounced).await.unwrap().len(), 100);
    let settings = Settings { max_size: 99, ..settings };
    assert_error!(fetch(&settings, &unannounced).await, FetchError::TooLarge { limit: 99 });
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn gzip_is_decoded_and_anything_else_refused() {
    let body = vec![b'a'; 700_000];
    for name in ["gzip", "x-gzip", "GZip", "identity, gzip"] {
        let zipped = gzip(&body);
        let headers = format!("content-encoding: {name}\r\n");
        assert_eq!(fetch_from(move |_| answer(200, &headers, &zipped)).await.unwrap(), body);
    }
    assert_eq!(
        fetch_from(|_| answer(200, "content-encoding: identity\r\n", "x")).await.unwrap(),
        b"x"
    );
    for name in
        ["br", "deflate", "zstd", "compress", "gzip, gzip", "gzip, br", "\u{e4}", "gzip;q=1"]
    {
        let headers = format!("content-encoding: {name}\r\n");
        assert_error!(
            fetch_from(move |_| answer(200, &headers, "x")).await,
            FetchError::NotMedia(_)
        );
    }
}

#[tokio::test]
async fn broken_gzip_is_not_media() {
    let whole = gzip(b"some media");
    let cut = whole[..whole.len() - 1].to_vec();
    let trailing = [&whole[..], b"garbage after the end"].concat();
    let mut wrong = whole.clone();
    let checksum = wrong.len() - 8;
    wrong[checksum] ^= 1;
    for body in [b"no gzip at all".to_vec(), cut, trailing, wrong, Vec::new()] {
        let act = move |_: &str| answer(200, "content-encoding: gzip\r\n", &body);
        assert_error!(fetch_from(act).await, FetchError::NotMedia(_));
    }
}

#[tokio::test]
async fn a_gzip_bomb_is_too_large() {
    let bomb = gzip(&vec![0; 64 * 1024 * 1024]);
    assert!(bomb.len() < 100_000);
    assert_error!(
        fetch_from(move |_| answer(200, "content-encoding: gzip\r\n", &bomb)).await,
        FetchError::TooLarge { limit: 4_194_304 }
    );
}

#[tokio::test]
async fn what_the_intake_says_ends_the_download() {
    let fake = Fake::start(|_| answer(200, "", vec![0; 600_000])).await;
    let homeservers = Homeservers::new(&fake.settings()).unwrap();
    let request = request(&fake.url(), None);
    let full = homeservers.open(&request).await.unwrap();
    assert_error!(
        full.stream_into((), |(), _| Err(IntakeError::SpoolFull)).await,
        FetchError::Intake(IntakeError::SpoolFull)
    );
    let large = homeservers.open(&request).await.unwrap();
    assert_error!(
        large.stream_into((), |(), _| Err(IntakeError::TooLarge { limit: 5 })).await,
        FetchError::TooLarge { limit: 5 }
    );
}

#[tokio::test]
async fn no_batch_is_larger_than_the_buffer() {
    let fake = Fake::start(|_| answer(200, "", vec![0; 3_000_000])).await;
    let opened = open(&fake.settings(), &request(&fake.url(), None)).await.unwrap();
    let sizes = opened
        .stream_into(Vec::new(), |sizes, bytes| {
            sizes.push(bytes.len());
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(sizes.iter().sum::<usize>(), 3_000_000);
    assert!(sizes.iter().all(|size| *size <= BATCH), "{sizes:?}");
}

#[tokio::test]
async fn a_download_that_is_dropped_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let homeserver = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.read_exact(&mut [0; 100]).await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
        // Ends when the connection does.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    let settings = Settings { base_homeserver_url: Some(base.clone()), ..settings() };
    let homeservers = Homeservers::new(&settings).unwrap();
    let opened = homeservers.open(&request(&base, None)).await.unwrap();
    let mut stream = Box::pin(opened.stream_into(Vec::new(), collect));
    std::future::poll_fn(|context| {
        assert!(stream.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(stream);
    homeserver.await.unwrap();
}

#[tokio::test]
async fn the_older_routes_are_tried_without_the_token() {
    let fake = Fake::start(|head| match head {
        _ if head.contains("/client/v1/") => errcode(404, "M_UNRECOGNIZED"),
        _ if head.contains("/media/v3/") => errcode(405, "M_UNRECOGNIZED"),
        _ => answer(200, "", "x"),
    })
    .await;
    fetch(&fake.settings(), &request(&fake.url(), Some(TOKEN))).await.unwrap();
    assert_eq!(
        fake.asked(),
        [
            "GET /_matrix/client/v1/media/download/example.org/abc",
            "GET /_matrix/media/v3/download/example.org/abc",
            "GET /_matrix/media/r0/download/example.org/abc",
        ]
    );
    let with_token: Vec<_> = fake.seen().iter().map(|head| head.contains("secret")).collect();
    assert_eq!(with_token, [true, false, false]);
}

#[tokio::test]
async fn a_404_leads_on_without_a_token_only() {
    let fake = Fake::start(|_| errcode(404, "M_NOT_FOUND")).await;
    assert_error!(
        fetch(&fake.settings(), &request(&fake.url(), Some(TOKEN))).await,
        FetchError::NotFound
    );
    assert_eq!(fake.asked().len(), 1);
    assert_error!(fetch(&fake.settings(), &request(&fake.url(), None)).await, FetchError::NotFound);
    assert_eq!(fake.asked().len(), 3);
}

#[tokio::test]
async fn only_known_parameters_pass_encoded_and_below_the_prefix() {
    let fake = Fake::start(|_| answer(200, "", "x")).await;
    let base = fake.url().join("/pre%20fix/hs/?q=1#f").unwrap();
    let settings = Settings { base_homeserver_url: Some(base.clone()), ..settings() };
    let thumbnail = Thumbnail {
        width: Some("64".into()),
        height: None,
        method: Some("cr op&access_token=x".into()),
        animated: Some("true".into()),
    };
    let request = MediaRequest {
        media: MediaId::parse("[2001:db8::1]:8448", "a_b-C").unwrap(),
        variant: Variant::Thumbnail(thumbnail),
        timeout_ms: Some("20000".into()),
        ..request(&base, Some(TOKEN))
    };
    fetch(&settings, &request).await.unwrap();
    let original = MediaRequest { variant: Variant::Original, ..request.clone() };
    fetch(&settings, &original).await.unwrap();
    assert_eq!(
        fake.asked(),
        [
            "GET /pre%20fix/hs/_matrix/client/v1/media/thumbnail/%5B2001:db8::1%5D:8448/a_b-C\
             ?width=64&method=cr+op%26access_token%3Dx&animated=true&timeout_ms=20000",
            "GET /pre%20fix/hs/_matrix/client/v1/media/download/%5B2001:db8::1%5D:8448/a_b-C?timeout_ms=20000",
        ]
    );
}

/// A request with every kind of header that must not leave its origin.
fn with_secrets(base: &Url) -> MediaRequest {
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

#[tokio::test]
async fn a_redirect_to_another_origin_takes_no_secret_along() {
    let other = Fake::start(|head| match head.contains("/back") {
        true => answer(200, "", "x"),
        false => answer(200, "", "y"),
    })
    .await;
    let to = other.url();
    let fake = Fake::start(move |head| match head {
        _ if head.starts_with("GET /same") => {
            redirect(format!("{}away?a=b", to.as_str().replace("//", "//u:p@")))
        }
        _ => redirect("/same"),
    })
    .await;
    let mut settings = Settings { allow_private_addresses: true, ..fake.settings() };
    settings.additional_headers.insert("x-operator", HeaderValue::from_static("secret-operator"));
    assert_eq!(fetch(&settings, &with_secrets(&fake.url())).await.unwrap(), b"y");

    let seen = fake.seen();
    assert_eq!(seen.len(), 2);
    for head in seen {
        // Within the origin everything goes along, except what is not the client's to say.
        assert!(head.contains(TOKEN) && head.contains("secret-cookie"), "{head}");
        assert!(
            head.contains("secret-operator") && head.contains("host: secret-host.example\r\n"),
            "{head}"
        );
        assert!(!head.contains("secret-forwarded") && !head.contains("secret-etag"), "{head}");
        assert!(
            !head.contains("range:")
                && !head.contains("br\r\n")
                && !head.contains("content-length"),
            "{head}"
        );
        assert_eq!(head.matches("host:").count(), 1);
    }
    let seen = other.seen();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].contains("secret") && !seen[0].contains("authorization"), "{}", seen[0]);
    assert!(seen[0].starts_with("GET /away?a=b HTTP"), "{}", seen[0]);
}

#[tokio::test]
async fn a_strangers_word_on_tokens_does_not_count() {
    let other = Fake::start(|_| errcode(401, "M_UNKNOWN_TOKEN")).await;
    let to = other.url();
    let fake = Fake::start(move |_| redirect(&to)).await;
    let settings = Settings { allow_private_addresses: true, ..fake.settings() };
    assert_error!(
        fetch(&settings, &request(&fake.url(), Some(TOKEN))).await,
        FetchError::MissingToken
    );
}

#[tokio::test]
async fn no_secret_comes_back_with_a_redirect_back() {
    let home: Arc<Mutex<Option<Url>>> = Arc::default();
    let back = Arc::clone(&home);
    let other =
        Fake::start(move |_| redirect(back.lock().unwrap().clone().unwrap().join("/end").unwrap()))
            .await;
    let to = other.url();
    let fake = Fake::start(move |head| match head.starts_with("GET /end") {
        true => answer(200, "", "x"),
        false => redirect(&to),
    })
    .await;
    *home.lock().unwrap() = Some(fake.url());
    let settings = Settings { allow_private_addresses: true, ..fake.settings() };
    assert_eq!(fetch(&settings, &with_secrets(&fake.url())).await.unwrap(), b"x");
    let seen = fake.seen();
    assert!(seen[0].contains("secret") && !seen[1].contains("secret"), "{seen:?}");
}

#[tokio::test]
async fn a_redirect_leads_to_global_addresses_only_by_whatever_name() {
    let inside = Fake::start(|_| answer(200, "", "x")).await;
    let port = inside.address.port();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0",
        "[::]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "１２７.0.0.1",
    ] {
        let to = format!("http://{host}:{port}/");
        assert_error!(fetch_from(move |_| redirect(&to)).await, FetchError::ForbiddenAddress(_));
    }
    assert_eq!(inside.asked().len(), 0);
}

#[tokio::test]
async fn configured_origins_are_exempt_as_targets_and_other_ports_are_not() {
    let other = Fake::start(|_| answer(200, "", "x")).await;
    let to = other.url();
    let fake = Fake::start(move |_| redirect(&to)).await;
    let mut settings = fake.settings();
    assert_error!(
        fetch(&settings, &request(&fake.url(), Some(TOKEN))).await,
        FetchError::ForbiddenAddress(_)
    );
    settings.homeservers.push(("other.example".into(), other.url()));
    assert_eq!(fetch(&settings, &request(&fake.url(), Some(TOKEN))).await.unwrap(), b"x");
    assert!(!other.seen()[0].contains("secret"));
}

#[tokio::test]
async fn redirects_end_and_stay_with_http() {
    let count = Fake::start(|head| {
        let hop: u32 = head.split(['/', ' ']).nth(2).and_then(|hop| hop.parse().ok()).unwrap_or(0);
        if hop == 5 { answer(200, "", "x") } else { redirect(format!("/{}", hop + 1)) }
    })
    .await;
    assert_eq!(fetch(&count.settings(), &request(&count.url(), None)).await.unwrap(), b"x");
    assert_eq!(count.asked().len(), 6);

    let looping = Fake::start(|_| redirect("/again")).await;
    assert_error!(
        fetch(&looping.settings(), &request(&looping.url(), None)).await,
        FetchError::NotMedia(_)
    );
    assert_eq!(looping.asked().len(), 6);

    for to in [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "data:text/plain,x",
        "http://",
        "//",
        "http://a b/",
        "gopher:x",
    ] {
        assert_error!(fetch_from(move |_| redirect(to)).await, FetchError::NotMedia(_));
    }
    assert_error!(fetch_from(|_| answer(302, "", "")).await, FetchError::NotMedia(_));
}

#[tokio::test]
async fn without_a_homeserver_the_named_one_is_asked_at_global_addresses_only() {
    let inside = Fake::start(|_| answer(200, "", "x")).await;
    let port = inside.address.port();
    for server in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("2130706433:{port}"),
        format!("[::1]:{port}"),
    ] {
        let request = MediaRequest {
            media: MediaId::parse(&server, "abc").unwrap(),
            origin: Origin::Discovered,
            ..request(&inside.url(), Some(TOKEN))
        };
        assert_error!(fetch(&settings(), &request).await, FetchError::ForbiddenAddress(_));
    }
    assert_eq!(inside.asked().len(), 0);
    let nobody = MediaRequest {
        media: MediaId::parse("1.2.3.4.5", "abc").unwrap(),
        origin: Origin::Discovered,
        ..request(&inside.url(), None)
    };
    assert_error!(fetch(&settings(), &nobody).await, FetchError::NotFound);
}

/// Behind a proxy that is every host, with an authority of the operator's.
async fn behind_proxy(
    answer: impl Fn(&str) -> Act + Send + Sync + 'static,
) -> (Fake, Settings, tempfile::NamedTempFile) {
    let (authority, acceptor) = tls(&["named.example", "hs.example"]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(authority.as_bytes()).unwrap();
    let proxy = Fake::proxy(acceptor, answer).await;
    let settings = Settings {
        proxy: Some(proxy.url()),
        ca_certificates: Some(file.path().to_owned()),
        ..settings()
    };
    (proxy, settings, file)
}

fn discovered(server: &str) -> MediaRequest {
    let nowhere = "http://unused.example".parse().unwrap();
    MediaRequest {
        media: MediaId::parse(server, "abc").unwrap(),
        origin: Origin::Discovered,
        ..with_secrets(&nowhere)
    }
}

#[tokio::test]
async fn discovery_asks_the_host_without_its_port_and_is_remembered() {
    let (proxy, mut settings, _file) = behind_proxy(|head| match head.contains("/.well-known/") {
        true => answer(200, "", r#"{"m.homeserver":{"base_url":"https://hs.example:444/base/"}}"#),
        false => answer(200, "", "x"),
    })
    .await;
    settings.additional_headers.insert("x-operator", HeaderValue::from_static("secret"));
    let homeservers = Homeservers::new(&settings).unwrap();
    for _ in 0..2 {
        let opened = homeservers.open(&discovered("named.example:8448")).await.unwrap();
        assert_eq!(opened.stream_into(Vec::new(), collect).await.unwrap(), b"x");
    }
    assert_eq!(
        proxy.asked(),
        [
            "CONNECT named.example:443",
            "GET /.well-known/matrix/client",
            "CONNECT hs.example:444",
            "GET /base/_matrix/media/v3/download/named.example:8448/abc",
            "CONNECT hs.example:444",
            "GET /base/_matrix/media/v3/download/named.example:8448/abc",
        ]
    );
    assert!(proxy.seen().iter().all(|head| !head.contains("secret")), "{:?}", proxy.seen());
}

#[tokio::test]
async fn without_a_usable_word_the_server_name_is_the_address() {
    let large = format!(
        r#"{{"m.homeserver":{{"base_url":"https://hs.example"}},"x":"{}"}}"#,
        "x".repeat(70_000)
    );
    for (status, word) in [(404, "{}".to_owned()), (200, "<html>".to_owned()), (200, large)] {
        let (proxy, settings, _file) =
            behind_proxy(move |head| match head.contains("/.well-known/") {
                true => answer(status, "", &word),
                false => answer(200, "", "x"),
            })
            .await;
        assert_eq!(fetch(&settings, &discovered("named.example:8448")).await.unwrap(), b"x");
        assert_eq!(proxy.asked()[2], "CONNECT named.example:8448");
    }
}

#[tokio::test]
async fn discovery_is_asked_once_for_many() {
    let (proxy, settings, _file) = behind_proxy(|_| answer(200, "", "{}")).await;
    let homeservers = Homeservers::new(&settings).unwrap();
    let requests: Vec<_> = (0..8).map(|_| discovered("named.example")).collect();
    let all = requests.iter().map(|request| homeservers.open(request));
    for opened in futures_util::future::join_all(all).await {
        opened.unwrap();
    }
    assert_eq!(proxy.asked().iter().filter(|asked| asked.contains("well-known")).count(), 1);
}

#[tokio::test]
async fn a_literal_address_is_checked_even_before_a_proxy() {
    let (proxy, settings, _file) = behind_proxy(|head| match head.contains("/.well-known/") {
        true => answer(200, "", r#"{"m.homeserver":{"base_url":"http://169.254.169.254/"}}"#),
        false => answer(200, "", "x"),
    })
    .await;
    assert_error!(
        fetch(&settings, &discovered("named.example")).await,
        FetchError::ForbiddenAddress(_)
    );
    assert_eq!(proxy.asked().len(), 2);
}

#[tokio::test]
async fn a_host_without_a_trusted_certificate_is_unreachable() {
    let (_proxy, mut settings, _file) = behind_proxy(|_| answer(200, "", "x")).await;
    let (authority, _) = tls(&["named.example"]);
    let mut other = tempfile::NamedTempFile::new().unwrap();
    other.write_all(authority.as_bytes()).unwrap();
    settings.ca_certificates = Some(other.path().to_owned());
    assert_error!(fetch(&settings, &discovered("named.example")).await, FetchError::Unreachable(_));
}

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

//! Tests of downloads: one fault each, and the error that it causes.

use std::{io::Write as _, time::Duration};

use reqwest::{Url, header::HeaderValue};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::media::{fake::*, tests::*, *};

#[tokio::test]
async fn returns_headers_and_body() {
    let body: Vec<u8> = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
    let sent = body.clone();
    let fake = FakeHomeserver::start(move |_| {
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
    assert_eq!(opened.stream_into(Vec::new(), collect, Ok).await.unwrap(), body);
    let head = fake.request_heads().remove(0).to_ascii_lowercase();
    assert!(head.starts_with("get /_matrix/client/v1/media/download/example.org/abc http/1.1\r\n"));
    assert!(head.contains("\r\nauthorization: bearer syt_secret\r\n"), "{head}");
    assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
    assert!(head.contains("\r\nuser-agent: matrix-content-scanner/"), "{head}");
    assert!(!head.contains("referer") && !head.contains("cookie"), "{head}");
}

#[tokio::test]
async fn ignores_repeated_headers() {
    let twice = "content-type: a/b\r\ncontent-type: a/b\r\netag: a\r\netag: b\r\n";
    let fake = FakeHomeserver::start(move |_| answer(200, twice, "x")).await;
    let opened = open(&fake.settings(), &request(&fake.url(), None)).await.unwrap();
    assert_eq!((opened.head.content_type, opened.head.etag), (None, None));
}

#[tokio::test]
async fn accepts_chunked_and_empty_bodies() {
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
    assert_eq!(fetch_from(|_| Act::Send(chunked.into())).await.unwrap(), b"abcd");
    assert_eq!(fetch_from(|_| answer(200, "", "")).await.unwrap(), b"");
}

#[tokio::test]
async fn body_without_progress_times_out() {
    let mut half = bytes(200, "", "abcd");
    half.truncate(half.len() - 2);
    let fake = FakeHomeserver::start(move |_| Act::Hang(half.clone())).await;
    let settings = Settings { idle_timeout: Duration::from_millis(200), ..fake.settings() };
    assert_error!(fetch(&settings, &request(&fake.url(), None)).await, FetchError::TimedOut(_));
}

fn dripping(delay: Duration) -> impl Fn(&str) -> Act + Send + Sync + 'static {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec();
    move |_| Act::Drip(head.clone(), b"x".to_vec(), delay)
}

#[tokio::test]
async fn endless_body_ends_at_total_timeout() {
    let fake = FakeHomeserver::start(dripping(Duration::from_millis(5))).await;
    let settings = Settings { total_timeout: Duration::from_millis(200), ..fake.settings() };
    assert_error!(fetch(&settings, &request(&fake.url(), None)).await, FetchError::TimedOut(_));
}

#[tokio::test]
async fn rejects_body_slower_than_min_rate() {
    let fake = FakeHomeserver::start(dripping(Duration::from_millis(5))).await;
    let mut homeservers =
        Homeservers::new(&Settings { min_rate: 100_000, ..fake.settings() }, Arc::default())
            .unwrap();
    homeservers.limits.rate_window = Duration::from_millis(100);
    let opened = homeservers.open(&request(&fake.url(), None)).await.unwrap();
    assert_error!(
        opened.stream_into(Vec::new(), collect, Ok).await,
        FetchError::TimedOut("slower than download.min_rate")
    );
}

#[tokio::test]
async fn rejects_truncated_body() {
    for short in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc",
    ] {
        assert_error!(fetch_from(|_| Act::Send(short.into())).await, FetchError::TruncatedBody(_));
    }
}

#[tokio::test]
async fn ignores_bytes_after_content_length() {
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef";
    assert_eq!(fetch_from(|_| Act::Send(long.into())).await.unwrap(), b"abc");
}

#[tokio::test]
async fn rejects_announced_and_received_bytes_above_max_size() {
    let fake = FakeHomeserver::start(|head| {
        let body = [b'x'; 100];
        if head.contains("abc") {
            Act::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n".into())
        } else {
            Act::Send([b"HTTP/1.1 200 OK\r\n\r\n", &body[..]].concat())
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
async fn decodes_gzip_and_rejects_other_encodings() {
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
async fn rejects_invalid_gzip() {
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
async fn rejects_gzip_bomb() {
    let bomb = gzip(&vec![0; 64 * 1024 * 1024]);
    assert!(bomb.len() < 100_000);
    assert_error!(
        fetch_from(move |_| answer(200, "content-encoding: gzip\r\n", &bomb)).await,
        FetchError::TooLarge { limit: 4_194_304 }
    );
}

#[tokio::test]
async fn ingest_error_ends_download() {
    let fake = FakeHomeserver::start(|_| answer(200, "", vec![0; 600_000])).await;
    let homeservers = Homeservers::new(&fake.settings(), Arc::default()).unwrap();
    let request = request(&fake.url(), None);
    let full = homeservers.open(&request).await.unwrap();
    assert_error!(
        full.stream_into((), |(), _| Err(IngestError::SpoolFull), Ok).await,
        FetchError::Ingest(IngestError::SpoolFull)
    );
    let large = homeservers.open(&request).await.unwrap();
    assert_error!(
        large.stream_into((), |(), _| Err(IngestError::TooLarge { limit: 5 }), Ok).await,
        FetchError::TooLarge { limit: 5 }
    );
}

#[tokio::test]
async fn batches_are_bounded() {
    let fake = FakeHomeserver::start(|_| answer(200, "", vec![0; 3_000_000])).await;
    let opened = open(&fake.settings(), &request(&fake.url(), None)).await.unwrap();
    let sizes = opened
        .stream_into(
            Vec::new(),
            |sizes, bytes| {
                sizes.push(bytes.len());
                Ok(())
            },
            Ok,
        )
        .await
        .unwrap();
    assert_eq!(sizes.iter().sum::<usize>(), 3_000_000);
    assert!(sizes.iter().all(|size| *size <= BATCH), "{sizes:?}");
}

#[tokio::test]
async fn dropped_download_closes_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let homeserver = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.read_exact(&mut [0; 100]).await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
        // Returns when the connection is closed.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    let settings = Settings { base_homeserver_url: Some(base.clone()), ..settings() };
    let homeservers = Homeservers::new(&settings, Arc::default()).unwrap();
    let opened = homeservers.open(&request(&base, None)).await.unwrap();
    let mut stream = Box::pin(opened.stream_into(Vec::new(), collect, Ok));
    std::future::poll_fn(|context| {
        assert!(stream.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(stream);
    homeserver.await.unwrap();
}

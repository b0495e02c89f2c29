//! Against ICAP servers on loopback, right ones and wrong ones.

mod findings;

use std::sync::Arc;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use super::{
    super::{
        fake::{BOUNDS, Fake, Fault, IMPATIENCE, PATIENCE, answer, linger},
        specimen::tests::specimen,
    },
    message::{Chunks, Piece},
    *,
};

const MEDIA: &[u8] = b"some media, not small and not large";

const UNCHANGED: &str = "ICAP/1.0 204 No Content\r\nISTag: \"one\"\r\n\r\n";

fn asking(servers: &[String], method: Method, timeout: Duration) -> Icap {
    let urls = servers.iter().map(|url| url.parse().unwrap()).collect();
    Icap::new(&settings(urls, method, timeout)).unwrap()
}

fn settings(urls: Vec<Url>, method: Method, timeout: Duration) -> Settings {
    Settings { urls, method, preview: true, ca_certificates: None, timeout, bounds: BOUNDS }
}

fn url(fake: &Fake) -> String {
    format!("icap://{}/avscan?x=y", fake.address)
}

/// A request as a server gets it.
#[derive(Debug)]
struct Asked {
    head: String,
    http: String,
    body: Vec<u8>,
    /// Whether all of the media came, by what the client says.
    whole: bool,
}

/// Reads a request, up to the end of its preview where it has one.
async fn read_request(stream: &mut TcpStream) -> Option<Asked> {
    let head = read_head(stream).await?;
    let mut asked = Asked { head, http: String::new(), body: Vec::new(), whole: true };
    if asked.head.starts_with("OPTIONS") {
        return Some(asked);
    }
    asked.http = read_head(stream).await?;
    if asked.head.starts_with("RESPMOD") {
        asked.http += &read_head(stream).await?;
    }
    let has_preview = asked.head.contains("\r\nPreview: ");
    let raw = read_chunks(stream).await;
    asked.whole = !has_preview || raw.ends_with(b"0; ieof\r\n\r\n");
    asked.body = unchunked(&raw);
    Some(asked)
}

/// Asks for what is behind the preview.
async fn read_rest(stream: &mut TcpStream, asked: &mut Asked) {
    if !asked.whole {
        stream.write_all(b"ICAP/1.0 100 Continue\r\n\r\n").await.unwrap();
        asked.body.extend(unchunked(&read_chunks(stream).await));
    }
}

/// Byte by byte, so that nothing of what follows is taken.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

async fn read_chunks(stream: &mut TcpStream) -> Vec<u8> {
    let mut raw = Vec::new();
    loop {
        let begin = raw.len();
        while !raw[begin..].ends_with(b"\r\n") {
            raw.push(stream.read_u8().await.unwrap());
        }
        let size = raw[begin..].split(|it| *it == b';').next().unwrap().trim_ascii();
        let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
        let mut data = vec![0; size + 2];
        stream.read_exact(&mut data).await.unwrap();
        raw.extend_from_slice(&data);
        if size == 0 {
            return raw;
        }
    }
}

fn unchunked(raw: &[u8]) -> Vec<u8> {
    let (mut chunks, mut raw, mut body) = (Chunks::new(), BytesMut::from(raw), Vec::new());
    loop {
        match chunks.next(&mut raw).unwrap() {
            Piece::Data(data) => body.extend_from_slice(&data),
            Piece::End => return body,
            Piece::Incomplete => panic!("chunks that are not whole"),
        }
    }
}

/// 200, with these HTTP heads and this body in two chunks.
fn sent_back(kind: &str, http: &str, body: &[u8]) -> Vec<u8> {
    let http = format!("{http}\r\nX: y\r\n\r\n");
    let mut said = format!(
        "ICAP/1.0 200 OK\r\nISTag: \"one\"\r\nEncapsulated: {kind}-hdr=0, {kind}-body={}\r\n\r\n{http}",
        http.len()
    )
    .into_bytes();
    let (first, second) = body.split_at(body.len() / 2);
    message::put_chunk(&mut said, first);
    message::put_chunk(&mut said, second);
    said.extend_from_slice(b"0\r\n\r\n");
    said
}

fn media_back(body: &[u8]) -> Vec<u8> {
    sent_back("res", "HTTP/1.1 200 OK", body)
}

/// A server that says this of each media when it has it whole, once a connection.
async fn server(said: impl Into<Vec<u8>>, fault: Fault) -> Fake {
    let said: Arc<[u8]> = said.into().into();
    Fake::serving(move |mut stream| {
        let said = Arc::clone(&said);
        async move {
            if let Some(mut asked) = read_request(&mut stream).await {
                read_rest(&mut stream, &mut asked).await;
                answer(&mut stream, &said, fault).await;
            }
            linger(stream).await;
        }
    })
    .await
}

async fn of_method(
    method: Method,
    said: impl Into<Vec<u8>>,
    fault: Fault,
    timeout: Duration,
) -> Result<Finding, EngineFailure> {
    let server = server(said, fault).await;
    asking(&[url(&server)], method, timeout).scan(&specimen(MEDIA)).await
}

async fn of(said: impl Into<Vec<u8>>, fault: Fault) -> Result<Finding, EngineFailure> {
    of_method(Method::Respmod, said, fault, PATIENCE).await
}

fn name(finding: Result<Finding, EngineFailure>) -> String {
    match finding.unwrap() {
        Finding::NotClean { name } => name,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn unchanged_and_the_whole_media_sent_back_are_clean() {
    assert_eq!(of(UNCHANGED, Fault::None).await.unwrap(), Finding::Clean);
    assert_eq!(of(media_back(MEDIA), Fault::None).await.unwrap(), Finding::Clean);
    let request = sent_back("req", "POST http://x/ HTTP/1.1", MEDIA);
    let finding = of_method(Method::Reqmod, request, Fault::None, PATIENCE).await;
    assert_eq!(finding.unwrap(), Finding::Clean);
}

#[tokio::test]
async fn what_breaks_off_or_makes_no_sense_is_a_failure() {
    let back = media_back(MEDIA);
    for end in [10, 40, 100, back.len() - 30, back.len() - 5, back.len() - 1] {
        let finding = of(&back[..end], Fault::None).await;
        assert!(matches!(finding, Err(EngineFailure::CutShort(_))), "{end}: {finding:?}");
    }
    for (said, fault) in [
        (UNCHANGED, Fault::Cut),
        (UNCHANGED, Fault::Twice),
        ("", Fault::None),
        ("HTTP/1.1 204 No Content\r\n\r\n", Fault::None),
        ("stream: OK\0\r\n\r\n", Fault::None),
        ("ICAP/1.0 200 OK\r\n\r\n", Fault::None),
        ("ICAP/1.0 206 Partial\r\nEncapsulated: null-body=0\r\n\r\n", Fault::None),
        ("ICAP/1.0 100 Continue\r\n\r\n", Fault::None),
        ("ICAP/1.0 404 Service not found\r\n\r\n", Fault::None),
        ("ICAP/1.0 408 Timeout\r\n\r\n", Fault::None),
        ("ICAP/1.0 500 Server error\r\n\r\n", Fault::None),
        ("ICAP/1.0 503 Overloaded\r\n\r\n", Fault::None),
        ("ICAP/1.0 204 No Content\r\n\r\nICAP/1.0 200 OK\r\nX-Virus-ID: a\r\n\r\n", Fault::None),
    ] {
        let finding = of(said, fault).await;
        assert!(finding.is_err(), "{said:?} {fault:?}: {finding:?}");
    }
    let error = sent_back("res", "HTTP/1.1 500 Scan error", b"an error page");
    assert!(matches!(of(error, Fault::None).await, Err(EngineFailure::Said(_))));
    for fault in [Fault::Silent, Fault::Drip] {
        let finding = of_method(Method::Respmod, UNCHANGED, fault, IMPATIENCE).await;
        assert!(matches!(finding, Err(EngineFailure::TimedOut)), "{fault:?}: {finding:?}");
    }
}

#[tokio::test]
async fn a_head_without_an_end_is_not_taken_in() {
    let endless = Fake::serving(|mut stream| async move {
        let _ = read_request(&mut stream).await;
        let _ = stream.write_all(b"ICAP/1.0 204 No Content\r\n").await;
        while stream.write_all(b"X: some header line\r\n").await.is_ok() {}
    })
    .await;
    let icap = asking(&[url(&endless)], Method::Respmod, PATIENCE);
    let failure = icap.scan(&specimen(MEDIA)).await.unwrap_err();
    assert!(matches!(failure, EngineFailure::NoSense(_)), "{failure}");
}

#[tokio::test]
async fn what_comes_in_the_medias_place_is_not_clean() {
    let page = b"<html>Blocked</html>";
    for said in [
        sent_back("res", "HTTP/1.1 403 Forbidden", page),
        sent_back("res", "HTTP/1.1 403 Forbidden", MEDIA),
        sent_back("res", "HTTP/1.1 302 Found", b""),
        media_back(page),
        media_back(&MEDIA[1..]),
        media_back(&MEDIA[..MEDIA.len() - 1]),
        media_back(&[MEDIA, b"x"].concat()),
        media_back(b""),
        "ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, null-body=19\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
            .into(),
    ] {
        let shown = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(name(of(said, Fault::None).await), "replaced by the ICAP server", "{shown}");
    }
    // To an upload, an answer is given in its place, whatever is in it.
    let finding = of_method(Method::Reqmod, media_back(MEDIA), Fault::None, PATIENCE).await;
    assert_eq!(name(finding), "replaced by the ICAP server");
}

#[tokio::test]
async fn an_empty_media_is_a_media() {
    for said in [UNCHANGED.as_bytes().to_vec(), media_back(b"")] {
        let server = server(said, Fault::None).await;
        let icap = asking(&[url(&server)], Method::Respmod, PATIENCE);
        assert_eq!(icap.scan(&specimen(b"")).await.unwrap(), Finding::Clean);
    }
}

#[tokio::test]
async fn what_is_said_before_the_media_is_there_is_no_clean() {
    let early = |said: Vec<u8>| async move {
        let said: Arc<[u8]> = said.into();
        let server = Fake::serving(move |mut stream| {
            let said = Arc::clone(&said);
            async move {
                let _ = read_head(&mut stream).await;
                answer(&mut stream, &said, Fault::None).await;
                // The rest is not read, so that it cannot all be sent.
                std::future::pending::<()>().await;
            }
        })
        .await;
        let icap = asking(&[url(&server)], Method::Respmod, PATIENCE);
        icap.scan(&specimen(&vec![7; 64 << 20])).await
    };
    assert!(matches!(early(UNCHANGED.into()).await, Err(EngineFailure::Early)));
    let infected = b"ICAP/1.0 200 OK\r\nX-Virus-ID: Eicar\r\n\r\n".to_vec();
    assert_eq!(name(early(infected).await), "Eicar");
}

#[tokio::test]
async fn a_large_media_may_be_sent_back_while_it_is_sent() {
    let echo = Fake::serving(|mut stream| async move {
        for _ in 0..2 {
            read_head(&mut stream).await.unwrap();
        }
        let http = read_head(&mut stream).await.unwrap();
        let length = http.len();
        let head =
            format!("ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body={length}\r\n\r\n{http}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        // Chunks as they came, without looking.
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let icap = asking(&[url(&echo)], Method::Respmod, PATIENCE);
    let media: Vec<u8> = (0..=250).cycle().take(20_000_000).collect();
    assert_eq!(icap.scan(&specimen(&media)).await.unwrap(), Finding::Clean);
}

/// A server that tells its options, with this preview, and remembers what it was asked. It keeps
/// connections, and says "unchanged" to a preview that is not the whole where `satisfied`.
struct Recording {
    fake: Fake,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Recording {
    async fn start(preview: &'static str, satisfied: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        let fake = Fake::on(listener, move |mut stream| {
            let record = Arc::clone(&record);
            async move {
                while let Some(mut asked) = read_request(&mut stream).await {
                    let options = asked.head.starts_with("OPTIONS");
                    if !satisfied {
                        read_rest(&mut stream, &mut asked).await;
                    }
                    record.lock().unwrap().push(asked);
                    let said = if options {
                        format!(
                            "ICAP/1.0 200 OK\r\nMethods: RESPMOD, REQMOD\r\nISTag: \"zero\"\r\n\
                             {preview}Allow: 204\r\nEncapsulated: null-body=0\r\n\r\n"
                        )
                    } else {
                        UNCHANGED.to_owned()
                    };
                    answer(&mut stream, said.as_bytes(), Fault::None).await;
                }
            }
        });
        Self { fake, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[tokio::test]
async fn a_preview_is_sent_where_the_server_wants_one_and_the_rest_when_it_asks() {
    for (preview, of_media) in [(4, MEDIA), (0, MEDIA), (1000, MEDIA), (4, b"abcd"), (0, b"")] {
        let header = format!("Preview: {preview}\r\n").leak();
        for satisfied in [false, true] {
            let server = Recording::start(header, satisfied).await;
            let icap = asking(&[url(&server.fake)], Method::Respmod, PATIENCE);
            icap.read_versions().await;
            assert_eq!(icap.scan(&specimen(of_media)).await.unwrap(), Finding::Clean);
            let asked = server.asked();
            let [options, scan] = asked.as_slice() else { panic!("{asked:?}") };
            assert!(options.head.starts_with("OPTIONS icap://127.0.0.1:"), "{options:?}");
            assert!(scan.head.contains(header.trim()), "{scan:?}");
            assert_eq!(scan.whole, preview >= of_media.len());
            let seen = if satisfied { preview.min(of_media.len()) } else { of_media.len() };
            assert_eq!(scan.body, of_media[..seen]);
        }
    }
}

#[tokio::test]
async fn where_previews_are_off_a_server_gets_the_whole_media_whatever_it_wants() {
    let server = Recording::start("Preview: 4\r\n", true).await;
    let urls = vec![url(&server.fake).parse().unwrap()];
    let settings = settings(urls, Method::Respmod, PATIENCE);
    let icap = Icap::new(&Settings { preview: false, ..settings }).unwrap();
    icap.read_versions().await;
    assert_eq!(icap.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
    let asked = server.asked();
    let scan = asked.last().unwrap();
    assert!(!scan.head.contains("Preview"), "{scan:?}");
    assert_eq!(scan.body, MEDIA);
}

#[tokio::test]
async fn requests_are_what_the_specification_says() {
    for (method, http) in [
        (
            Method::Respmod,
            "GET http://media.invalid/media HTTP/1.1\r\nHost: media.invalid\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 35\r\n\r\n",
        ),
        (
            Method::Reqmod,
            "POST http://media.invalid/media HTTP/1.1\r\nHost: media.invalid\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: 35\r\n\r\n",
        ),
    ] {
        let server = Recording::start("", false).await;
        let icap = asking(&[url(&server.fake)], method, PATIENCE);
        assert_eq!(icap.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
        let asked = server.asked();
        let [scan] = asked.as_slice() else { panic!("{asked:?}") };
        assert_eq!(scan.http, http);
        assert_eq!(scan.body, MEDIA);
        let address = server.fake.address;
        let line = format!("{} icap://{address}/avscan?x=y ICAP/1.0", method.as_str());
        assert!(scan.head.starts_with(&line), "{}", scan.head);
        for header in [format!("Host: {address}"), "Allow: 204".into()] {
            assert!(scan.head.contains(&format!("\r\n{header}\r\n")), "{}", scan.head);
        }
        // Where each part begins.
        let value = scan.head.lines().find_map(|line| line.strip_prefix("Encapsulated: ")).unwrap();
        let second = http.find("\r\n\r\n").unwrap() + 4;
        let expected = match method {
            Method::Respmod => {
                format!("req-hdr=0, res-hdr={second}, res-body={}", http.len())
            }
            Method::Reqmod => format!("req-hdr=0, req-body={}", http.len()),
        };
        assert_eq!(value, expected);
    }
}

#[tokio::test]
async fn connections_are_kept_and_one_that_has_been_closed_is_made_anew() {
    let server = Recording::start("", false).await;
    let icap = asking(&[url(&server.fake)], Method::Respmod, PATIENCE);
    icap.read_versions().await;
    for _ in 0..5 {
        assert_eq!(icap.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
    }
    assert_eq!(server.fake.connections(), 1);
    let (_, held) = server.fake.dies().await;
    let again = server_on(held);
    assert_eq!(icap.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
    assert_eq!(again.connections(), 1);
}

/// A server where one has been.
fn server_on(held: TcpSocket) -> Fake {
    Fake::on(held.listen(16).unwrap(), |mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            answer(&mut stream, UNCHANGED.as_bytes(), Fault::None).await;
        }
    })
}

#[tokio::test]
async fn a_connection_that_is_closed_when_it_is_used_again_is_no_failure() {
    // Closed on the second request, unheard: it cannot be seen before.
    let server = Fake::serving(|mut stream| async move {
        let _ = read_request(&mut stream).await;
        answer(&mut stream, UNCHANGED.as_bytes(), Fault::None).await;
        let _ = read_head(&mut stream).await;
    })
    .await;
    let icap = asking(&[url(&server)], Method::Respmod, PATIENCE);
    for _ in 0..3 {
        assert_eq!(icap.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn what_a_server_says_unasked_is_nobodys_answer() {
    // A late "unchanged", which would be taken for the next media's.
    let signals = Arc::new([tokio::sync::Notify::new(), tokio::sync::Notify::new()]);
    let seen = Arc::clone(&signals);
    let server = Fake::serving(move |mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            let [say, said] = &*seen;
            let _ = read_request(&mut stream).await;
            answer(&mut stream, UNCHANGED.as_bytes(), Fault::None).await;
            say.notified().await;
            answer(&mut stream, UNCHANGED.as_bytes(), Fault::None).await;
            said.notify_one();
            let _ = read_head(&mut stream).await;
        }
    })
    .await;
    let icap = asking(&[url(&server)], Method::Respmod, PATIENCE);
    assert_eq!(icap.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
    let [say, said] = &*signals;
    say.notify_one();
    said.notified().await;
    // For the runtime to look at its sockets once.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(icap.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
    assert_eq!(server.connections(), 2, "the first connection is not used again");
}

#[tokio::test]
async fn a_dead_server_of_two_is_passed_by_and_one_that_breaks_off_is_followed() {
    let (dead, _held) = Recording::start("", false).await.fake.dies().await;
    let breaks = Fake::serving(|stream| async move { drop(stream) }).await;
    let well = Recording::start("", false).await;
    let urls = [format!("icap://{dead}/avscan"), url(&breaks), url(&well.fake)];
    let icap = asking(&urls, Method::Respmod, PATIENCE);
    for _ in 0..6 {
        assert_eq!(icap.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
    }
    let alone = asking(&urls[..1], Method::Respmod, PATIENCE);
    let failure = alone.scan(&specimen(MEDIA)).await.unwrap_err();
    assert!(matches!(failure, EngineFailure::Unreachable(_)), "{failure}");
}

#[tokio::test]
async fn the_istag_is_the_version_and_each_answer_has_one() {
    let server = Recording::start("", false).await;
    let icap = asking(&[url(&server.fake)], Method::Respmod, PATIENCE);
    assert_eq!(icap.versions(), None);
    icap.read_versions().await;
    assert_eq!(icap.versions().unwrap(), "\"zero\"");
    let _ = icap.scan(&specimen(MEDIA)).await.unwrap();
    assert_eq!(icap.versions().unwrap(), "\"one\"");
    for (options, wrong) in [
        ("ICAP/1.0 404 Not found\r\n\r\n", "no such service"),
        ("ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\n\r\n", "no tag"),
        ("ICAP/1.0 200 OK\r\nMethods: REQMOD\r\nISTag: \"x\"\r\n\r\n", "another method"),
    ] {
        let server = server_saying(options).await;
        let icap = asking(&[url(&server)], Method::Respmod, PATIENCE);
        icap.read_versions().await;
        assert_eq!(icap.versions(), None, "{wrong}");
    }
}

async fn server_saying(said: &'static str) -> Fake {
    Fake::serving(move |mut stream| async move {
        let _ = read_request(&mut stream).await;
        answer(&mut stream, said.as_bytes(), Fault::None).await;
    })
    .await
}

#[tokio::test]
async fn icaps_is_spoken_with_whom_the_certificates_name() {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::TlsAcceptor;

    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Fake::serving(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n0\r\n\r\n") {
                if !matches!(stream.read_buf(&mut asked).await, Ok(n) if n > 0) {
                    return;
                }
            }
            let _ = stream.write_all(UNCHANGED.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let trusted = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&trusted, cert.pem()).unwrap();
    let settings = |trusted: Option<&std::path::Path>| Settings {
        urls: vec![format!("icaps://{}/avscan", server.address).parse().unwrap()],
        method: Method::Respmod,
        preview: true,
        ca_certificates: trusted.map(std::path::Path::to_owned),
        timeout: PATIENCE,
        bounds: BOUNDS,
    };
    let icap = Icap::new(&settings(Some(trusted.path()))).unwrap();
    assert_eq!(icap.scan(&specimen(MEDIA)).await.unwrap(), Finding::Clean);
    // Where no root is there at all, it is not even set up.
    if let Ok(icap) = Icap::new(&settings(None)) {
        let failure = icap.scan(&specimen(MEDIA)).await.unwrap_err();
        assert!(matches!(failure, EngineFailure::Unreachable(_)), "{failure}");
    }
}

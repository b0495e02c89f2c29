//! Scans with fake ICAP servers on loopback: selection of servers, time limits, versions, and TLS.

use mcs_testing::{FakeServer, Fault, LONG_TIMEOUT, SHORT_TIMEOUT, linger, read_until, respond};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    super::{fake::BOUNDS, sample::tests::sample},
    *,
};

const MEDIA: &[u8] = b"some media, not small and not large";

const OPTIONS: &str = "ICAP/1.0 200 OK\r\nMethods: RESPMOD, REQMOD\r\nISTag: \"zero\"\r\n\
                       Allow: 204\r\nEncapsulated: null-body=0\r\n\r\n";

const UNMODIFIED: &str = "ICAP/1.0 204 No Content\r\nISTag: \"one\"\r\n\r\n";

fn engine(urls: &[String], timeout: Duration) -> Icap {
    let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
    Icap::new(&settings(urls, timeout)).unwrap()
}

fn settings(urls: Vec<Url>, timeout: Duration) -> Settings {
    let method = Method::Respmod;
    Settings { urls, method, preview: true, ca_certificates: None, timeout, bounds: BOUNDS }
}

fn url(server: &FakeServer) -> String {
    format!("icap://{}/avscan?x=y", server.address)
}

/// Starts a server that responds to requests, without previews, until the client closes the connection.
async fn server(response: &'static str, fault: Fault) -> FakeServer {
    FakeServer::start(move |mut stream| async move {
        while let Some(is_options) = read_request(&mut stream).await {
            let response = if is_options { OPTIONS } else { response };
            respond(&mut stream, response.as_bytes(), fault).await;
        }
        linger(stream).await;
    })
    .await
}

/// Reads a request. Returns whether the request is for the options; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<bool> {
    let mut request = read_until(stream, b"\r\n\r\n").await;
    let is_options = request.starts_with(b"OPTIONS");
    while !request.is_empty() && !is_options && !request.ends_with(b"\r\n0\r\n\r\n") {
        request.extend(read_until(stream, b"\r\n\r\n").await);
    }
    (!request.is_empty()).then_some(is_options)
}

/// Scans the media. Returns the outcome of the highest precedence.
async fn scan(icap: &Icap) -> Result<Outcome, EngineFailure> {
    icap.scan(&sample(MEDIA)).await.map(|(outcome, _)| outcome)
}

#[tokio::test]
async fn all_kinds_that_may_pass_are_outcomes() {
    let response = "ICAP/1.0 204 No Content\r\n\
                    X-Error-Code: max_file_size_exceeded, decode_error, password_protected\r\n\r\n";
    let server = server(response, Fault::None).await;
    let outcomes = engine(&[url(&server)], LONG_TIMEOUT).scan(&sample(MEDIA)).await.unwrap();
    let limit = Outcome::Limit("decode_error".into());
    let encrypted = Outcome::Encrypted("password_protected".into());
    assert_eq!(outcomes, (encrypted, vec![limit, Outcome::TooLarge]));
}

#[tokio::test]
async fn answers_of_servers_determine_outcome() {
    for (response, expected) in [
        (UNMODIFIED, Outcome::Clean),
        ("ICAP/1.0 200 OK\r\nX-Virus-ID: Eicar\r\n\r\n", Outcome::Infected("Eicar".into())),
        (
            "ICAP/1.0 500 Server error\r\nX-Error-Code: file_type_blocked\r\n\r\n",
            Outcome::Refused("file_type_blocked".into()),
        ),
        (
            "ICAP/1.0 500 Server error\r\nX-Error-Code: password_protected\r\n\r\n",
            Outcome::Encrypted("password_protected".into()),
        ),
        (
            "ICAP/1.0 500 Server error\r\nX-Error-Code: decode_error\r\n\r\n",
            Outcome::Limit("decode_error".into()),
        ),
        (
            "ICAP/1.0 500 Server error\r\nX-Error-Code: max_file_size_exceeded\r\n\r\n",
            Outcome::TooLarge,
        ),
        ("ICAP/1.0 413 Too large\r\n\r\n", Outcome::TooLarge),
    ] {
        let server = server(response, Fault::None).await;
        let icap = engine(&[url(&server)], LONG_TIMEOUT);
        assert_eq!(scan(&icap).await.unwrap(), expected);
    }
    for (response, cause) in [
        ("", "engine_connection_lost"),
        ("ICAP/1.0 500 Server error\r\n\r\n", "engine_error"),
        ("ICAP/1.0 200 OK\r\n\r\n", "engine_bad_response"),
    ] {
        let server = FakeServer::start(move |mut stream| async move {
            let _ = read_request(&mut stream).await;
            respond(&mut stream, response.as_bytes(), Fault::None).await;
            linger(stream).await;
        })
        .await;
        let icap = engine(&[url(&server)], LONG_TIMEOUT);
        let failure = scan(&icap).await.unwrap_err();
        assert_eq!(failure.cause().as_str(), cause, "{failure}");
    }
}

#[tokio::test]
async fn unresponsive_server_fails_at_time_limit() {
    for fault in [Fault::Silent, Fault::Drip] {
        let server = server(UNMODIFIED, fault).await;
        let finding = scan(&engine(&[url(&server)], SHORT_TIMEOUT)).await;
        assert!(matches!(finding, Err(EngineFailure::TimedOut)), "{fault:?}: {finding:?}");
    }
}

#[tokio::test]
async fn tries_other_servers_after_failed_or_lost_connection() {
    let (stopped, _reserved) = server(UNMODIFIED, Fault::None).await.stop().await;
    let closing = FakeServer::start(|stream| async move { drop(stream) }).await;
    let running = server(UNMODIFIED, Fault::None).await;
    let urls = [format!("icap://{stopped}/avscan"), url(&closing), url(&running)];
    let icap = engine(&urls, LONG_TIMEOUT);
    for _ in 0..6 {
        assert_eq!(scan(&icap).await.unwrap(), Outcome::Clean);
    }
    let icap = engine(&urls[..1], LONG_TIMEOUT);
    let failure = scan(&icap).await.unwrap_err();
    assert!(matches!(failure, EngineFailure::Unreachable(_)), "{failure}");
}

#[tokio::test]
async fn istag_of_options_and_responses_is_the_version() {
    let server = server(UNMODIFIED, Fault::None).await;
    let icap = engine(&[url(&server)], LONG_TIMEOUT);
    assert_eq!(icap.versions(), None);
    icap.read_options(&ChangeNotifier::default()).await;
    assert_eq!(icap.versions().unwrap(), "\"zero\"");
    let _ = scan(&icap).await.unwrap();
    assert_eq!(icap.versions().unwrap(), "\"one\"");
    let invalid = FakeServer::start(|mut stream| async move {
        let _ = read_request(&mut stream).await;
        respond(&mut stream, b"ICAP/1.0 404 Not found\r\n\r\n", Fault::None).await;
    })
    .await;
    let icap = engine(&[url(&invalid)], LONG_TIMEOUT);
    icap.read_options(&ChangeNotifier::default()).await;
    assert_eq!(icap.versions(), None);
}

#[tokio::test]
async fn icaps_verifies_server_certificate() {
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
    let server = FakeServer::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n0\r\n\r\n") {
                if !matches!(stream.read_buf(&mut request).await, Ok(n) if n > 0) {
                    return;
                }
            }
            let _ = stream.write_all(UNMODIFIED.as_bytes()).await;
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
        timeout: LONG_TIMEOUT,
        bounds: BOUNDS,
    };
    let icap = Icap::new(&settings(Some(trusted.path()))).unwrap();
    assert_eq!(scan(&icap).await.unwrap(), Outcome::Clean);
    // On a machine without any root certificate, the setup fails already.
    if let Ok(icap) = Icap::new(&settings(None)) {
        let failure = scan(&icap).await.unwrap_err();
        assert!(matches!(failure, EngineFailure::Unreachable(_)), "{failure}");
    }
}

//! Connections: reuse, failover between servers, versions and TLS.

use tokio::net::TcpSocket;

use super::*;

#[tokio::test]
async fn reuses_connection_and_replaces_closed_one() {
    let recording = RecordingServer::start("", false).await;
    let icap = engine(&[url(&recording.server)], Method::Respmod, LONG_TIMEOUT);
    icap.read_versions().await;
    for _ in 0..5 {
        assert_eq!(icap.scan(&sample(MEDIA)).await.unwrap(), Finding::Clean);
    }
    assert_eq!(recording.server.connections(), 1);
    let (_, reserved) = recording.server.stop().await;
    let restarted = restart(reserved);
    assert_eq!(icap.scan(&sample(MEDIA)).await.unwrap(), Finding::Clean);
    assert_eq!(restarted.connections(), 1);
}

/// Starts a server on the address of a stopped one.
fn restart(reserved: TcpSocket) -> FakeServer {
    FakeServer::from_listener(reserved.listen(16).unwrap(), |mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            respond(&mut stream, UNMODIFIED.as_bytes(), Fault::None).await;
        }
    })
}

#[tokio::test]
async fn retries_when_idle_connection_is_closed_on_reuse() {
    // Closes after the head of the second request, without a response.
    let server = FakeServer::start(|mut stream| async move {
        let _ = read_request(&mut stream).await;
        respond(&mut stream, UNMODIFIED.as_bytes(), Fault::None).await;
        let _ = read_head(&mut stream).await;
    })
    .await;
    let icap = engine(&[url(&server)], Method::Respmod, LONG_TIMEOUT);
    for _ in 0..3 {
        assert_eq!(icap.scan(&sample(MEDIA)).await.unwrap(), Finding::Clean);
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn does_not_reuse_connection_with_unsolicited_response() {
    // A second "unmodified", which would be taken for the response to the next file.
    let signals = Arc::new([tokio::sync::Notify::new(), tokio::sync::Notify::new()]);
    let server_signals = Arc::clone(&signals);
    let server = FakeServer::start(move |mut stream| {
        let signals = Arc::clone(&server_signals);
        async move {
            let [trigger, sent] = &*signals;
            let _ = read_request(&mut stream).await;
            respond(&mut stream, UNMODIFIED.as_bytes(), Fault::None).await;
            trigger.notified().await;
            respond(&mut stream, UNMODIFIED.as_bytes(), Fault::None).await;
            sent.notify_one();
            let _ = read_head(&mut stream).await;
        }
    })
    .await;
    let icap = engine(&[url(&server)], Method::Respmod, LONG_TIMEOUT);
    assert_eq!(icap.scan(&sample(MEDIA)).await.unwrap(), Finding::Clean);
    let [trigger, sent] = &*signals;
    trigger.notify_one();
    sent.notified().await;
    // Lets the runtime poll its sockets once.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(icap.scan(&sample(MEDIA)).await.unwrap(), Finding::Clean);
    assert_eq!(server.connections(), 2, "the first connection must not be used again");
}

#[tokio::test]
async fn tries_other_servers_after_failed_or_lost_connection() {
    let (stopped, _reserved) = RecordingServer::start("", false).await.server.stop().await;
    let closing = FakeServer::start(|stream| async move { drop(stream) }).await;
    let running = RecordingServer::start("", false).await;
    let urls = [format!("icap://{stopped}/avscan"), url(&closing), url(&running.server)];
    let icap = engine(&urls, Method::Respmod, LONG_TIMEOUT);
    for _ in 0..6 {
        assert_eq!(icap.scan(&sample(MEDIA)).await.unwrap(), Finding::Clean);
    }
    let icap = engine(&urls[..1], Method::Respmod, LONG_TIMEOUT);
    let failure = icap.scan(&sample(MEDIA)).await.unwrap_err();
    assert!(matches!(failure, EngineFailure::Unreachable(_)), "{failure}");
}

#[tokio::test]
async fn istag_of_options_and_responses_is_the_version() {
    let recording = RecordingServer::start("", false).await;
    let icap = engine(&[url(&recording.server)], Method::Respmod, LONG_TIMEOUT);
    assert_eq!(icap.versions(), None);
    icap.read_versions().await;
    assert_eq!(icap.versions().unwrap(), "\"zero\"");
    let _ = icap.scan(&sample(MEDIA)).await.unwrap();
    assert_eq!(icap.versions().unwrap(), "\"one\"");
    for (response, reason) in [
        ("ICAP/1.0 404 Not found\r\n\r\n", "unknown service"),
        ("ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\n\r\n", "no ISTag"),
        ("ICAP/1.0 200 OK\r\nMethods: REQMOD\r\nISTag: \"x\"\r\n\r\n", "unsupported method"),
    ] {
        let server = FakeServer::start(move |mut stream| async move {
            let _ = read_request(&mut stream).await;
            respond(&mut stream, response.as_bytes(), Fault::None).await;
        })
        .await;
        let icap = engine(&[url(&server)], Method::Respmod, LONG_TIMEOUT);
        icap.read_versions().await;
        assert_eq!(icap.versions(), None, "{reason}");
    }
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
    assert_eq!(icap.scan(&sample(MEDIA)).await.unwrap(), Finding::Clean);
    // On a machine without any root certificate, the setup fails already.
    if let Ok(icap) = Icap::new(&settings(None)) {
        let failure = icap.scan(&sample(MEDIA)).await.unwrap_err();
        assert!(matches!(failure, EngineFailure::Unreachable(_)), "{failure}");
    }
}

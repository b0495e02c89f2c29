//! A homeserver for tests that may misbehave in any way: a socket on loopback that writes what it is
//! told and remembers what it was asked. Knows as little HTTP as it can, since a server library would
//! not let it lie.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::{
    Url,
    header::{HeaderMap, HeaderValue},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{MediaId, MediaRequest, Origin, Requester, Settings, Variant};

/// What a connection does once a request's head is in.
pub(super) enum Act {
    /// Write, then close.
    Send(Vec<u8>),
    /// Write, then keep the connection open and say nothing more.
    Hang(Vec<u8>),
    /// Write the first, then the second again and again at this pace.
    Drip(Vec<u8>, Vec<u8>, Duration),
}

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Fake {
    /// Answers every request's head by `answer`.
    pub(super) async fn start(answer: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        Self::listen(None, answer).await
    }

    /// An HTTP proxy to everywhere, which is itself: behind any CONNECT it speaks TLS.
    pub(super) async fn proxy(
        tls: TlsAcceptor,
        answer: impl Fn(&str) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(tls), answer).await
    }

    async fn listen(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&str) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let remember = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let (seen, answer, tls) = (Arc::clone(&remember), Arc::clone(&answer), tls.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else { return talk(socket, &seen, &*answer).await };
                    let head = read_head(&mut socket).await;
                    seen.lock().unwrap().push(head);
                    socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                    // A client that does not trust us goes away here.
                    if let Ok(inside) = tls.accept(socket).await {
                        talk(inside, &seen, &*answer).await;
                    }
                });
            }
        });
        Self { address, seen, task }
    }

    pub(super) fn url(&self) -> Url {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// The heads of all requests so far.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Their first lines, without the version.
    pub(super) fn asked(&self) -> Vec<String> {
        let line = |head: &String| head.split(" HTTP/1.1").next().unwrap().to_owned();
        self.seen().iter().map(line).collect()
    }

    /// Settings that know this homeserver alone.
    pub(super) fn settings(&self) -> Settings {
        Settings { base_homeserver_url: Some(self.url()), ..settings() }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn talk(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<String>>,
    answer: &(dyn Fn(&str) -> Act + Sync),
) {
    let head = read_head(&mut socket).await;
    if head.is_empty() {
        return;
    }
    seen.lock().unwrap().push(head.clone());
    // Write errors are the client's leaving, which is its right.
    match answer(&head) {
        Act::Send(bytes) => {
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
        }
        Act::Hang(bytes) => {
            let _ = socket.write_all(&bytes).await;
            // Until the client goes.
            let _ = socket.read(&mut [0]).await;
        }
        Act::Drip(head, piece, pace) => {
            let _ = socket.write_all(&head).await;
            while socket.write_all(&piece).await.is_ok() {
                tokio::time::sleep(pace).await;
            }
        }
    }
}

async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A whole answer that closes its connection; `headers` end with a line break each.
pub(super) fn answer(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Act {
    Act::Send(bytes(status, headers, body))
}

pub(super) fn bytes(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let mut answer = format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

pub(super) fn redirect(to: impl std::fmt::Display) -> Act {
    answer(307, &format!("location: {to}\r\n"), "")
}

pub(super) fn errcode(status: u16, errcode: &str) -> Act {
    answer(status, "", format!(r#"{{"errcode":"{errcode}","error":"x"}}"#))
}

/// Long limits, no homeserver.
pub(super) fn settings() -> Settings {
    Settings {
        base_homeserver_url: None,
        homeservers: Vec::new(),
        proxy: None,
        additional_headers: HeaderMap::new(),
        headers_to_forward: Vec::new(),
        forward_client_address: false,
        max_size: 4 * 1024 * 1024,
        connect_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(10),
        total_timeout: Duration::from_secs(20),
        min_rate: 0,
        allow_private_addresses: false,
        ca_certificates: None,
        authorisation_ttl: Duration::from_secs(5),
    }
}

/// A download of `mxc://example.org/abc` through `base`, with or without a token.
pub(super) fn request(base: &Url, token: Option<&'static str>) -> MediaRequest {
    MediaRequest {
        media: MediaId::parse("example.org", "abc").unwrap(),
        variant: Variant::Original,
        timeout_ms: None,
        origin: Origin::Configured(super::exits::base_url(base)),
        requester: Requester {
            authorization: token.map(HeaderValue::from_static),
            forwarded: HeaderMap::new(),
        },
    }
}

/// An authority (PEM) and a TLS server with a certificate of that authority's for these names.
pub(super) fn tls(names: &[&str]) -> (String, TlsAcceptor) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::PrivateKeyDer;

    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (authority, TlsAcceptor::from(Arc::new(config)))
}

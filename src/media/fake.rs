//! Fake homeserver for tests: a TCP socket on loopback that writes prepared bytes and records requests. Not based on an
//! HTTP library, which would not send malformed responses.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::{Url, header::HeaderValue};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{MediaId, MediaRequest, Origin, Requester, Settings, Variant};
use crate::config::Config;

/// Action of a connection after a request head.
pub(super) enum Act {
    /// Writes the bytes, then closes the connection.
    Send(Vec<u8>),
    /// Writes the bytes, then keeps the connection open.
    Hang(Vec<u8>),
    /// Writes the first bytes, then repeatedly the second ones, with this delay.
    Drip(Vec<u8>, Vec<u8>, Duration),
}

pub(super) struct FakeHomeserver {
    pub(super) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl FakeHomeserver {
    /// Starts a server that handles each request head with `respond`.
    pub(super) async fn start(respond: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        Self::listen(None, respond).await
    }

    /// Starts an HTTP proxy that is also the target of every connection: it speaks TLS after any CONNECT.
    pub(super) async fn proxy(
        tls: TlsAcceptor,
        respond: impl Fn(&str) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(tls), respond).await
    }

    async fn listen(
        tls: Option<TlsAcceptor>,
        respond: impl Fn(&str) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let respond = Arc::new(respond);
        let recorded = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let (heads, respond, tls) =
                    (Arc::clone(&recorded), Arc::clone(&respond), tls.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else { return handle(socket, &heads, &*respond).await };
                    let head = read_head(&mut socket).await;
                    heads.lock().unwrap().push(head);
                    socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                    // Fails for a client that does not trust the certificate.
                    if let Ok(stream) = tls.accept(socket).await {
                        handle(stream, &heads, &*respond).await;
                    }
                });
            }
        });
        Self { address, heads, task }
    }

    pub(super) fn url(&self) -> Url {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// Returns the heads of all requests.
    pub(super) fn request_heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Returns the method and target of all requests.
    pub(super) fn requests(&self) -> Vec<String> {
        let line = |head: &String| head.split(" HTTP/1.1").next().unwrap().to_owned();
        self.request_heads().iter().map(line).collect()
    }

    /// Returns settings with this homeserver as the only one.
    pub(super) fn settings(&self) -> Settings {
        Settings { base_homeserver_url: Some(self.url()), ..settings() }
    }
}

impl Drop for FakeHomeserver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handle(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    heads: &Mutex<Vec<String>>,
    respond: &(dyn Fn(&str) -> Act + Sync),
) {
    let head = read_head(&mut socket).await;
    if head.is_empty() {
        return;
    }
    heads.lock().unwrap().push(head.clone());
    // Ignores write errors: clients may disconnect.
    match respond(&head) {
        Act::Send(bytes) => {
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
        }
        Act::Hang(bytes) => {
            let _ = socket.write_all(&bytes).await;
            // Returns when the client disconnects.
            let _ = socket.read(&mut [0]).await;
        }
        Act::Drip(head, piece, delay) => {
            let _ = socket.write_all(&head).await;
            while socket.write_all(&piece).await.is_ok() {
                tokio::time::sleep(delay).await;
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

/// Sends a complete response and closes the connection. Each line of `headers` ends with a line break.
pub(super) fn answer(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Act {
    Act::Send(bytes(status, headers, body))
}

pub(super) fn bytes(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let mut response = format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    )
    .into_bytes();
    response.extend_from_slice(body);
    response
}

pub(super) fn redirect(to: impl std::fmt::Display) -> Act {
    answer(307, &format!("location: {to}\r\n"), "")
}

pub(super) fn errcode(status: u16, errcode: &str) -> Act {
    answer(status, "", format!(r#"{{"errcode":"{errcode}","error":"x"}}"#))
}

/// Returns settings with long time limits and no homeserver.
pub(super) fn settings() -> Settings {
    Settings {
        max_size: 4 * 1024 * 1024,
        idle_timeout: Duration::from_secs(10),
        total_timeout: Duration::from_secs(20),
        min_rate: 0,
        ..Config::for_test().download
    }
}

/// Returns a request for `mxc://example.org/abc` to `base`, with an optional access token.
pub(super) fn request(base: &Url, token: Option<&'static str>) -> MediaRequest {
    MediaRequest {
        media: MediaId::parse("example.org", "abc").unwrap(),
        variant: Variant::Original,
        timeout_ms: None,
        origin: Origin::Configured(super::http_util::base_url(base)),
        requester: Requester {
            authorization: token.map(HeaderValue::from_static),
            ..Requester::default()
        },
    }
}

/// Creates a certificate authority (PEM), and a TLS acceptor with a certificate of it for `names`.
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

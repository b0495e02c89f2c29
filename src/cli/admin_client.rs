//! Client of the `[admin]` listener of the running service.

use std::{fmt, io, time::Duration};

use axum::http::{Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use zeroize::Zeroizing;

use crate::{admin::protocol::ErrorReply, http::Listen};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A listing of a large store takes some seconds, and a scan at most `scan.deadline`, by default five minutes.
const REPLY_TIMEOUT: Duration = Duration::from_secs(6 * 60);

/// Maximum size of a reply, bytes.
const MAX_REPLY: usize = 64 << 20;

/// Reason why the service could not be asked, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot connect to {address}: {reason}")]
    Connect { address: String, reason: String },
    #[error("the service at {0} did not answer in time")]
    TimedOut(String),
    #[error(
        "the service does not accept this token; it reads admin.token_path at its start and at each reload"
    )]
    Token,
    #[error("the service rejects the request: {0}")]
    Rejected(String),
    #[error("{address} is not the [admin] listener of a scanner: {reason}")]
    Unexpected { address: String, reason: String },
}

pub(super) struct AdminClient {
    pub(super) address: Listen,
    pub(super) token: Zeroizing<String>,
}

impl fmt::Debug for AdminClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminClient").field("address", &self.address).finish_non_exhaustive()
    }
}

impl AdminClient {
    /// Requests a path with its query.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request("GET", path, Bytes::new()).await
    }

    /// Makes a change.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.unexpected(error))?;
        self.request("POST", path, body.into()).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.host())
            .header(header::AUTHORIZATION, format!("Bearer {}", *self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.unexpected(error))?;
        let sent = async {
            match &self.address {
                Listen::Unix(path) => {
                    let stream = self.connected(UnixStream::connect(path)).await?;
                    self.send(stream, request).await
                }
                Listen::Tcp { host, port } => {
                    let stream = self.connected(TcpStream::connect((&**host, *port))).await?;
                    self.send(stream, request).await
                }
            }
        };
        let (status, body) = timeout(REPLY_TIMEOUT, sent)
            .await
            .map_err(|_elapsed| ClientError::TimedOut(self.name()))??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.unexpected(error));
        }
        let Ok(reply) = serde_json::from_slice::<ErrorReply>(&body) else {
            return Err(self.unexpected(format!("status {status}")));
        };
        match status {
            StatusCode::UNAUTHORIZED => Err(ClientError::Token),
            _ => Err(ClientError::Rejected(reply.message)),
        }
    }

    async fn connected<S>(
        &self,
        connect: impl Future<Output = io::Result<S>>,
    ) -> Result<S, ClientError> {
        match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                let reason = connect_reason(&error);
                Err(ClientError::Connect { address: self.name(), reason })
            }
            Err(_elapsed) => Err(ClientError::TimedOut(self.name())),
        }
    }

    async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.unexpected(error))?;
        // Ends with the response.
        tokio::spawn(connection);
        let response = sender.send_request(request).await;
        let (head, body) = response.map_err(|error| self.unexpected(error))?.into_parts();
        let body = Limited::new(body, MAX_REPLY).collect().await;
        Ok((head.status, body.map_err(|error| self.unexpected(error))?.to_bytes()))
    }

    fn unexpected(&self, reason: impl fmt::Display) -> ClientError {
        ClientError::Unexpected { address: self.name(), reason: reason.to_string() }
    }

    /// Returns a host that the service accepts whatever its names are.
    fn host(&self) -> String {
        match &self.address {
            Listen::Unix(_) => "127.0.0.1".to_owned(),
            Listen::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Listen::Tcp { host, port } => format!("{host}:{port}"),
        }
    }

    fn name(&self) -> String {
        match &self.address {
            Listen::Unix(path) => path.display().to_string(),
            Listen::Tcp { .. } => self.host(),
        }
    }
}

/// Returns why a connection failed, and what to do.
fn connect_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket. Is the service running, and admin.enabled true?".to_owned()
        }
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there. Is the service running, and admin.enabled true?".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied. Run the command as root or as the service's user".to_owned()
        }
        _ => error.to_string(),
    }
}

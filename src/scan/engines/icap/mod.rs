//! ICAP client, RFC 3507. It presents the file as a download (RESPMOD) or an upload (REQMOD), with a preview if the
//! server requests one. An unmodified response (204), or the whole file sent back, is "clean". A response that
//! names a finding, or replaces the file, is "not clean". Everything else is a failure.
//!
//! This is an own implementation because `icap-rs` 0.3 buffers response bodies in memory without a limit, and keeps
//! one idle connection only. Servers without 204 support send back whole files.

mod exchange;
mod finding;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod message;

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::{
    bounds::Bounds,
    error::{EngineFailure, EngineSetupError},
    outcome::Finding,
    pool::{Pool, PoolMember, connect_with_timeout},
    sample::Sample,
};
use crate::media::{self, tls};
use exchange::{Connection, ScanExchange, ServiceOptions};

pub use exchange::Method;

/// Default ports: of RFC 3507, and the usual one for TLS.
const PORT: u16 = 1344;
const TLS_PORT: u16 = 11344;

/// Maximum idle time of a connection before reuse, and maximum number of idle connections for each server.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_IDLE: usize = 32;

/// `[icap]`, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// URLs of services, `icap://` or `icaps://`; at least one.
    pub urls: Vec<Url>,
    /// How files are presented.
    pub method: Method,
    /// Whether servers that request a preview get one. A server may give its verdict on the preview alone.
    pub preview: bool,
    /// PEM file with additional root certificates.
    pub ca_certificates: Option<PathBuf>,
    /// Time limit for one file, over all servers that are tried.
    pub timeout: Duration,
    /// Size bound, and effect of failures.
    pub bounds: Bounds,
}

/// The ICAP engine.
#[derive(Debug)]
pub struct Icap {
    pool: Pool<Endpoint>,
    method: Method,
    preview: bool,
    timeout: Duration,
}

/// A service of a server.
struct Endpoint {
    uri: String,
    /// Value of the `Host` header.
    authority: String,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<(Connection, Instant)>>,
    options: Mutex<Option<ServiceOptions>>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Icap {
    /// Creates the engine without connecting. Blocking with `icaps` URLs: reads certificates.
    ///
    /// # Errors
    /// Certificates that cannot be read, or a URL without a host.
    pub fn new(settings: &Settings) -> Result<Self, EngineSetupError> {
        let uses_tls = settings.urls.iter().any(|url| url.scheme() == "icaps");
        let connector = uses_tls.then(|| -> Result<_, EngineSetupError> {
            let roots = tls::roots(settings.ca_certificates.as_deref())?;
            if roots.is_empty() {
                return Err(media::OutboundSetupError::NoRoots(tls::NO_ROOTS).into());
            }
            Ok(TlsConnector::from(Arc::new(tls::client_config(roots)?)))
        });
        let connector = connector.transpose()?;
        let endpoint = |url: &Url| Endpoint::new(url, connector.as_ref());
        let endpoints = settings.urls.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            pool: Pool::new("icap", endpoints),
            method: settings.method,
            preview: settings.preview,
            timeout: settings.timeout,
        })
    }

    /// Scans a file with the first available server.
    ///
    /// # Errors
    /// Everything other than a complete response with a verdict.
    pub async fn scan<'s>(&'s self, sample: &'s Sample) -> Result<Finding, EngineFailure> {
        let exchange = |member: &'s PoolMember<Endpoint>| async move {
            let result = member.endpoint.scan(self.method, self.preview, sample).await?;
            // Every response has an ISTag, so that the first response after a signature update reveals it.
            if let Some(istag) = &result.istag {
                member.set_version(istag);
            }
            Ok(result.finding)
        };
        self.pool.request(self.timeout, exchange).await
    }

    /// Reads the options of all servers, which include their versions.
    pub(super) async fn read_versions<'s>(&'s self) {
        let read = |member: &'s PoolMember<Endpoint>| member.endpoint.read_options(self.method);
        self.pool.read_versions(read).await;
    }

    pub(super) fn versions(&self) -> Option<String> {
        self.pool.versions()
    }
}

impl Endpoint {
    fn new(url: &Url, connector: Option<&TlsConnector>) -> Result<Self, EngineSetupError> {
        let no_host = || EngineSetupError::NoHost(url.to_string());
        let url_host = url.host_str().ok_or_else(no_host)?;
        let host = url_host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let uses_tls = url.scheme() == "icaps";
        let port = url.port().unwrap_or(if uses_tls { TLS_PORT } else { PORT });
        let tls = match connector {
            Some(connector) if uses_tls => {
                let name = ServerName::try_from(host.clone()).map_err(|_| no_host())?;
                Some((connector.clone(), name))
            }
            _ => None,
        };
        let authority = format!("{url_host}:{port}");
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        // RFC 3507 defines the scheme `icap` only; servers do not accept `icaps` in requests.
        let uri = format!("icap://{authority}{}{query}", url.path());
        let (idle, options) = (Mutex::default(), Mutex::default());
        Ok(Self { uri, authority, host, port, tls, idle, options })
    }

    async fn scan(
        &self,
        method: Method,
        preview: bool,
        sample: &Sample,
    ) -> Result<ScanExchange, EngineFailure> {
        let requested = self.options.lock().as_ref().and_then(|options| options.preview);
        let preview = requested.filter(|_| preview);
        if let Some(mut connection) = self.take_idle() {
            let result = connection.scan(&self.uri, &self.authority, method, preview, sample).await;
            match result {
                // The server closed the idle connection at the same time: a new connection is tried.
                Err(EngineFailure::ConnectionLost(_)) if !connection.has_received() => {}
                result => return self.finish(connection, result),
            }
        }
        let mut connection = self.connect().await?;
        let result = connection.scan(&self.uri, &self.authority, method, preview, sample).await;
        self.finish(connection, result)
    }

    /// Keeps the connection if it is reusable. Returns `result`.
    fn finish(
        &self,
        connection: Connection,
        result: Result<ScanExchange, EngineFailure>,
    ) -> Result<ScanExchange, EngineFailure> {
        if result.as_ref().is_ok_and(|result| result.reusable) {
            self.put_idle(connection);
        }
        result
    }

    async fn read_options(&self, method: Method) -> Result<Arc<str>, EngineFailure> {
        let mut connection = self.connect().await?;
        let (options, reusable) = connection.options(&self.uri, &self.authority, method).await?;
        if reusable {
            self.put_idle(connection);
        }
        let istag = options.istag.as_str().into();
        *self.options.lock() = Some(options);
        Ok(istag)
    }

    async fn connect(&self) -> Result<Connection, EngineFailure> {
        let tcp = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            // Sends the end of a file without delay.
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let Some((connector, name)) = &self.tls else {
            return Ok(Connection::new(Box::new(connect_with_timeout(tcp).await?)));
        };
        let tls = async { connector.connect(name.clone(), tcp.await?).await };
        Ok(Connection::new(Box::new(connect_with_timeout(tls).await?)))
    }

    /// Takes an idle connection that the server has not closed, as far as known.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| since.elapsed() < IDLE_TIMEOUT);
        while let Some((mut connection, _)) = idle.pop() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    fn put_idle(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| since.elapsed() < IDLE_TIMEOUT);
        if idle.len() < MAX_IDLE {
            idle.push((connection, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests;

//! An ICAP server, asked as a proxy would ask it: the media is presented as a download (RESPMOD) or an
//! upload (REQMOD), with a preview where the server wants one. "Unchanged" (204) is clean, and so is
//! the whole media sent back; whatever else comes is not clean where the server says so or sends
//! another thing in the media's place, and a failure in all other cases. RFC 3507.
//!
//! Ours, since what there is (`icap-rs` 0.3) collects the answer's body in memory without a bound and
//! keeps one idle connection: media come back whole from servers that do not speak 204.

mod exchange;
mod finding;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod message;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::{
    Bounds, EngineFailure, Finding, SetupError,
    servers::{Server, Servers, connected},
    specimen::Specimen,
};
use crate::media::{self, tls};
use exchange::{Connection, Options, Told};

pub use exchange::Method;

/// Ports where none is written: RFC 3507's, and what servers use for TLS.
const PORT: u16 = 1344;
const TLS_PORT: u16 = 11344;

/// How long a connection is kept for its next use, and how many of them for each server.
const IDLE: Duration = Duration::from_secs(30);
const MAX_IDLE: usize = 32;

/// `[icap]`, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `icap://` or `icaps://`, with the service's path; at least one.
    pub urls: Vec<Url>,
    /// How media are presented.
    pub method: Method,
    /// Whether a server that wants to see the beginning first gets that; its word may be on that alone then.
    pub preview: bool,
    /// Certificates (PEM) that are trusted beside the system's.
    pub ca_certificates: Option<PathBuf>,
    /// For one media, whatever number of servers is tried.
    pub timeout: Duration,
    /// Which media, and what no answer means.
    pub bounds: Bounds,
}

/// The engine.
#[derive(Debug)]
pub struct Icap {
    servers: Servers<Endpoint>,
    method: Method,
    preview: bool,
    timeout: Duration,
}

/// A service on a server.
struct Endpoint {
    uri: String,
    /// As the `Host` header has it.
    authority: String,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<(Connection, Instant)>>,
    options: Mutex<Option<Options>>,
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
    /// Asks nobody yet. Blocking where TLS is used: reads the system's certificates.
    ///
    /// # Errors
    /// Certificates that cannot be read, or a URL without a host.
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let secure = settings.urls.iter().any(|url| url.scheme() == "icaps");
        let connector = secure.then(|| -> Result<_, SetupError> {
            let roots = tls::roots(settings.ca_certificates.as_deref())?;
            if roots.is_empty() {
                return Err(media::SetupError::NoRoots(tls::NO_ROOTS).into());
            }
            Ok(TlsConnector::from(Arc::new(tls::client_config(roots)?)))
        });
        let connector = connector.transpose()?;
        let endpoint = |url: &Url| Endpoint::new(url, connector.as_ref());
        let endpoints = settings.urls.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            servers: Servers::new("icap", endpoints),
            method: settings.method,
            preview: settings.preview,
            timeout: settings.timeout,
        })
    }

    /// What the first server that can be reached says of a media.
    ///
    /// # Errors
    /// [`EngineFailure`], whatever is neither "clean" nor "not clean".
    pub async fn scan<'s>(&'s self, specimen: &'s Specimen) -> Result<Finding, EngineFailure> {
        let exchange = |server: &'s Server<Endpoint>| async move {
            let told = server.endpoint.scan(self.method, self.preview, specimen).await?;
            // Each answer has one: new signatures are noticed at the first of them.
            if let Some(istag) = &told.istag {
                server.told_version(istag);
            }
            Ok(told.finding)
        };
        self.servers.ask(self.timeout, exchange).await
    }

    /// Asks every server for its options.
    pub(super) async fn read_versions<'s>(&'s self) {
        let read = |server: &'s Server<Endpoint>| server.endpoint.read_options(self.method);
        self.servers.read_versions(read).await;
    }

    pub(super) fn versions(&self) -> Option<String> {
        self.servers.versions()
    }
}

impl Endpoint {
    fn new(url: &Url, connector: Option<&TlsConnector>) -> Result<Self, SetupError> {
        let no_host = || SetupError::NoHost(url.to_string());
        let written = url.host_str().ok_or_else(no_host)?;
        let host = written.trim_start_matches('[').trim_end_matches(']').to_owned();
        let secure = url.scheme() == "icaps";
        let port = url.port().unwrap_or(if secure { TLS_PORT } else { PORT });
        let tls = match connector {
            Some(connector) if secure => {
                let name = ServerName::try_from(host.clone()).map_err(|_| no_host())?;
                Some((connector.clone(), name))
            }
            _ => None,
        };
        let authority = format!("{written}:{port}");
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        // Servers know the scheme of the specification alone.
        let uri = format!("icap://{authority}{}{query}", url.path());
        let (idle, options) = (Mutex::default(), Mutex::default());
        Ok(Self { uri, authority, host, port, tls, idle, options })
    }

    async fn scan(
        &self,
        method: Method,
        preview: bool,
        specimen: &Specimen,
    ) -> Result<Told, EngineFailure> {
        let wanted = lock(&self.options).as_ref().and_then(|options| options.preview);
        let preview = wanted.filter(|_| preview);
        if let Some(mut connection) = self.kept() {
            let told = connection.scan(&self.uri, &self.authority, method, preview, specimen).await;
            match told {
                // It was closed at the moment when it was used.
                Err(EngineFailure::CutShort(_)) if connection.heard_nothing() => {}
                told => return self.done(connection, told),
            }
        }
        let mut connection = self.connect().await?;
        let told = connection.scan(&self.uri, &self.authority, method, preview, specimen).await;
        self.done(connection, told)
    }

    fn done(
        &self,
        connection: Connection,
        told: Result<Told, EngineFailure>,
    ) -> Result<Told, EngineFailure> {
        if told.as_ref().is_ok_and(|told| told.reusable) {
            self.keep(connection);
        }
        told
    }

    async fn read_options(&self, method: Method) -> Result<Arc<str>, EngineFailure> {
        let mut connection = self.connect().await?;
        let (options, reusable) = connection.options(&self.uri, &self.authority, method).await?;
        if reusable {
            self.keep(connection);
        }
        let istag = options.istag.as_str().into();
        *lock(&self.options) = Some(options);
        Ok(istag)
    }

    async fn connect(&self) -> Result<Connection, EngineFailure> {
        let tcp = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            // The end of a media waits for nothing.
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let Some((connector, name)) = &self.tls else {
            return Ok(Connection::new(Box::new(connected(tcp).await?)));
        };
        let stream = connected(async { connector.connect(name.clone(), tcp.await?).await }).await?;
        Ok(Connection::new(Box::new(stream)))
    }

    /// A connection of before that is still good, as far as can be seen.
    fn kept(&self) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        while let Some((mut connection, _)) = idle.pop() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Connection) {
        let mut idle = lock(&self.idle);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        if idle.len() < MAX_IDLE {
            idle.push((connection, Instant::now()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole at every point where a panic could strike.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! The ICAP engine: settings, servers, and the meaning of their answers. `mcs-icap` implements the protocol.

pub use crate::config::sections::icap::Settings;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use mcs_icap::{
    Answer, Connect, Content, Finding, FindingKind, IcapClient, IcapError, IcapService,
    ServiceOptions, Transport,
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::{
    changes::{ChangeNotifier, EngineChange},
    engine_server::EngineServer,
    error::{EngineFailure, EngineSetupError},
    outcome::Outcome,
    pool::{Pool, PoolMember, within_connect_timeout},
    sample::Sample,
};
use crate::media::{self, tls};

pub use mcs_icap::Method;

const USER_AGENT: &str = concat!("matrix-content-scanner/", env!("CARGO_PKG_VERSION"));

/// Default ports: of RFC 3507, and the usual one for TLS.
const PORT: u16 = 1344;
const TLS_PORT: u16 = 11344;

/// The ICAP engine.
#[derive(Debug)]
pub struct Icap {
    pool: Pool<IcapClient<Connector>>,
    timeout: Duration,
}

/// Opens connections to a server.
struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
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
        let client = |url: &Url| client(url, settings, connector.as_ref());
        let clients = settings.urls.iter().map(client).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { pool: Pool::new("icap", clients), timeout: settings.timeout })
    }

    /// Scans a file with the first available server. Returns the outcome of the highest precedence, and further outcomes
    /// of which the operator's policies apply too: a server may report encrypted contents and a limit.
    ///
    /// # Errors
    /// Everything other than a complete response with a verdict.
    pub async fn scan<'s>(
        &'s self,
        sample: &'s Sample,
    ) -> Result<(Outcome, Vec<Outcome>), EngineFailure> {
        let exchange = |member: &'s PoolMember<IcapClient<Connector>>| async move {
            let reply = member.endpoint.scan(sample).await?;
            // Every response has an ISTag, so that the first response after a signature update reveals it.
            if let Some(istag) = &reply.istag {
                member.set_version(istag);
            }
            Ok(match reply.answer {
                Answer::Clean => (Outcome::Clean, Vec::new()),
                Answer::Found { first, others } => {
                    (outcome(first), others.into_iter().map(outcome).collect())
                }
            })
        };
        self.pool.request(self.timeout, exchange).await
    }

    /// Reads the options of all servers, which include their versions. Announces changes before they take effect.
    pub(super) async fn read_options<'s>(&'s self, changes: &'s ChangeNotifier) {
        let read = |member: &'s PoolMember<IcapClient<Connector>>| async move {
            Ok(member.endpoint.read_options().await?)
        };
        let apply = |member: &'s PoolMember<IcapClient<Connector>>, options: ServiceOptions| async move {
            let client = &member.endpoint;
            let _permission = match client.options() {
                Some(current) if current == options => None,
                current => {
                    let change = match current {
                        Some(current) if current.behaviour == options.behaviour => {
                            EngineChange::Version
                        }
                        _ => EngineChange::Behaviour,
                    };
                    // If the canary is not informed, the next reading announces the change again.
                    Some(changes.announce(change).await?)
                }
            };
            let version = options.istag.as_str().into();
            client.apply(options);
            Some(version)
        };
        self.pool.read_and_apply(read, apply).await;
    }

    pub(super) fn servers(&self) -> Vec<EngineServer> {
        self.pool.servers()
    }

    pub(super) fn versions(&self) -> Option<String> {
        self.pool.versions()
    }

    pub(super) fn has_all_versions(&self) -> bool {
        self.pool.has_all_versions()
    }
}

/// Creates the client of one server.
fn client(
    url: &Url,
    settings: &Settings,
    connector: Option<&TlsConnector>,
) -> Result<IcapClient<Connector>, EngineSetupError> {
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
    let service = IcapService { uri, authority, method: settings.method, user_agent: USER_AGENT };
    Ok(IcapClient::new(service, settings.preview, Connector { host, port, tls }))
}

impl Connect for Connector {
    async fn connect(&self) -> io::Result<Box<dyn Transport>> {
        let tcp = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            // Sends the end of a file without delay.
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let Some((connector, name)) = &self.tls else {
            return Ok(Box::new(within_connect_timeout(tcp).await?));
        };
        let tls = async { connector.connect(name.clone(), tcp.await?).await };
        Ok(Box::new(within_connect_timeout(tls).await?))
    }
}

impl Content for Sample {
    fn len(&self) -> u64 {
        self.len()
    }

    async fn read_chunk(&self, offset: u64, max: u64) -> io::Result<Bytes> {
        self.read_chunk(offset, max).await
    }
}

/// Returns the outcome for a finding of a server.
fn outcome(finding: Finding) -> Outcome {
    let Finding { kind, name } = finding;
    match kind {
        FindingKind::Infected => Outcome::Infected(name.into()),
        FindingKind::Refused => Outcome::Refused(name.into()),
        FindingKind::Encrypted => Outcome::Encrypted(name.into()),
        FindingKind::Limit => Outcome::Limit(name.into()),
        FindingKind::TooLarge => Outcome::TooLarge,
    }
}

impl From<IcapError> for EngineFailure {
    fn from(error: IcapError) -> Self {
        match error {
            IcapError::Unreachable(cause) => Self::Unreachable(cause),
            IcapError::ConnectionLost(cause) => Self::ConnectionLost(cause),
            IcapError::PrematureAnswer => Self::PrematureVerdict,
            IcapError::Reported(reason) => Self::Reported(reason),
            IcapError::BadResponse(reason) => Self::BadResponse(reason),
            IcapError::Content(cause) => Self::Media(cause),
        }
    }
}

#[cfg(test)]
mod tests;

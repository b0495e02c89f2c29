//! Addresses of the servers of a shared store.

use std::{borrow::Cow, fmt, sync::Arc};

use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use zeroize::Zeroizing;

use super::tls::{TlsSetupError, client_config};

const SERVER_PORT: u16 = 6379;

const SENTINEL_PORT: u16 = 26379;

/// Servers of a shared store, with the credentials and certificates to connect to them. `Debug` prints no password.
#[derive(Clone, Debug)]
pub struct StoreServers {
    pub(crate) topology: ServerTopology,
    pub(crate) credentials: StoreCredentials,
    /// Number of the database, 0 for a cluster.
    pub(crate) database: i64,
    /// `None`: connections without TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// How the server of a key is found.
#[derive(Clone, Debug)]
pub(crate) enum ServerTopology {
    Single(ServerAddress),
    /// Some nodes of a cluster, which name the others.
    Cluster(Vec<ServerAddress>),
    /// Sentinels, which name the primary of a service.
    Sentinel {
        sentinels: Vec<ServerAddress>,
        service: String,
    },
}

/// Host and port of a server.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ServerAddress {
    /// DNS name or IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Name and password of an ACL user. `Debug` prints no password.
#[derive(Clone, Default)]
pub(crate) struct StoreCredentials {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Zeroizing<String>>,
}

/// Reason why addresses cannot be used. The messages are for operators and contain no part of an address, because a
/// misspelt one may contain a password at any place. `number`: position of the address, from 1.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "explained by the messages")]
pub enum StoreServersError {
    #[error(
        "no address of the shared store is given; give one that starts with redis:// or rediss://"
    )]
    NoAddress,
    #[error(
        "address {number} of the shared store starts with none of redis://, rediss:// (TLS), redis+cluster://, \
         rediss+cluster://, redis+sentinel:// and rediss+sentinel://"
    )]
    Scheme { number: usize },
    #[error(
        "address {number} of the shared store has no valid host and port; write HOST, HOST:PORT or [IPV6]:PORT, and \
         escape special characters of a password as %XX"
    )]
    Host { number: usize },
    #[error(
        "address {number} of the shared store names several hosts; only sentinels are separated by commas"
    )]
    SeveralHosts { number: usize },
    #[error(
        "address {number} of the shared store has an invalid path; write /DATABASE with the number of a database, or \
         /SERVICE or /SERVICE/DATABASE for sentinels"
    )]
    Path { number: usize },
    #[error("address {number} of the shared store names a database; a cluster has only database 0")]
    ClusterDatabase { number: usize },
    #[error(
        "address {number} of the shared store has a user or password that is not UTF-8 after decoding %XX"
    )]
    Credentials { number: usize },
    #[error(
        "the password of the shared store is given twice, in an address and separately; remove it from the address"
    )]
    TwoPasswords,
    #[error("the shared store has a user, but no password; set the password, too")]
    NoPassword,
    #[error(
        "address {number} of the shared store differs from the first one in scheme, user or password; several addresses \
         are nodes of one cluster"
    )]
    Mixed { number: usize },
    #[error(
        "several addresses of the shared store are given with sentinels; name all sentinels in one address"
    )]
    SeveralWithSentinel,
    #[error(
        "CA certificates of the shared store are given, but its addresses use no TLS; write rediss:// for redis://"
    )]
    CertificatesWithoutTls,
    #[error("the CA certificates of the shared store cannot be used: {0}")]
    Certificates(String),
    #[error(
        "no root certificates were found; install the package ca-certificates, or give the CA certificates of the shared store"
    )]
    NoRoots,
}

impl From<TlsSetupError> for StoreServersError {
    fn from(error: TlsSetupError) -> Self {
        match error {
            TlsSetupError::Certificates(message) => Self::Certificates(message),
            TlsSetupError::NoRoots => Self::NoRoots,
        }
    }
}

/// Kind of an address, by its scheme.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AddressKind {
    Server,
    Cluster,
    Sentinel,
}

/// One address.
struct ParsedAddress {
    kind: AddressKind,
    is_tls: bool,
    credentials: StoreCredentials,
    hosts: Vec<ServerAddress>,
    /// Segments of the path, without empty ones.
    path: Vec<String>,
}

impl StoreServers {
    /// Parses addresses. `redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]` is a server; several such addresses, or one
    /// with `redis+cluster://`, are nodes of a cluster; `redis+sentinel://[…@]HOST[:PORT][,HOST[:PORT]…]/SERVICE[/DATABASE]`
    /// are sentinels. `rediss` in place of `redis` stands for TLS. User and password are those of the servers;
    /// sentinels receive them only if they require authentication.
    ///
    /// `ca_certificates_pem`: trusted instead of the root certificates of the system, which are read here otherwise
    /// (blocking).
    ///
    /// # Errors
    /// If an address, the password or the certificates cannot be used.
    pub fn parse(
        urls: &[String],
        password: Option<Zeroizing<String>>,
        ca_certificates_pem: Option<&[u8]>,
    ) -> Result<Self, StoreServersError> {
        let ParsedServers { topology, database, is_tls, credentials } = ParsedServers::parse(urls)?;
        let tls = match (is_tls, ca_certificates_pem) {
            (true, certificates) => Some(Arc::new(client_config(certificates)?)),
            (false, None) => None,
            (false, Some(_)) => return Err(StoreServersError::CertificatesWithoutTls),
        };
        let credentials = merge_password(credentials, password)?;
        Ok(Self { topology, credentials, database, tls })
    }

    /// Checks addresses as [`parse`](Self::parse) does, without the password and the certificates that are given
    /// separately.
    ///
    /// # Errors
    /// If an address cannot be used, or not with a separate password or with certificates.
    pub fn check(
        urls: &[String],
        has_password: bool,
        has_ca_certificates: bool,
    ) -> Result<(), StoreServersError> {
        let ParsedServers { is_tls, credentials, .. } = ParsedServers::parse(urls)?;
        if has_ca_certificates && !is_tls {
            return Err(StoreServersError::CertificatesWithoutTls);
        }
        merge_password(credentials, has_password.then(Zeroizing::default)).map(drop)
    }
}

/// All addresses together.
struct ParsedServers {
    topology: ServerTopology,
    database: i64,
    is_tls: bool,
    credentials: StoreCredentials,
}

impl ParsedServers {
    fn parse(urls: &[String]) -> Result<Self, StoreServersError> {
        let addresses =
            urls.iter().enumerate().map(|(index, url)| ParsedAddress::parse(url, index + 1));
        let mut addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        check_equal(&addresses)?;
        let seeds: Vec<_> = addresses.iter().flat_map(|address| address.hosts.clone()).collect();
        let (count, first) = (addresses.len(), addresses.drain(..).next());
        let first = first.ok_or(StoreServersError::NoAddress)?;
        let kind = if count > 1 { AddressKind::Cluster } else { first.kind };
        let (topology, database) = topology(kind, &first, seeds)?;
        Ok(Self { topology, database, is_tls: first.is_tls, credentials: first.credentials })
    }
}

/// Checks that several addresses can be nodes of one cluster.
fn check_equal(addresses: &[ParsedAddress]) -> Result<(), StoreServersError> {
    let [first, others @ ..] = addresses else { return Ok(()) };
    for (index, other) in others.iter().enumerate() {
        let number = index + 2;
        if other.kind == AddressKind::Sentinel || first.kind == AddressKind::Sentinel {
            return Err(StoreServersError::SeveralWithSentinel);
        }
        let is_equal = other.kind == first.kind
            && other.is_tls == first.is_tls
            && other.credentials.user == first.credentials.user
            && other.credentials.password == first.credentials.password;
        if !is_equal {
            return Err(StoreServersError::Mixed { number });
        }
        if parse_database(&other.path, number)? != 0 {
            return Err(StoreServersError::ClusterDatabase { number });
        }
    }
    Ok(())
}

fn topology(
    kind: AddressKind,
    first: &ParsedAddress,
    hosts: Vec<ServerAddress>,
) -> Result<(ServerTopology, i64), StoreServersError> {
    let number = 1;
    if kind == AddressKind::Sentinel {
        let (service, path) = first.path.split_first().ok_or(StoreServersError::Path { number })?;
        let topology = ServerTopology::Sentinel { sentinels: hosts, service: service.clone() };
        return Ok((topology, parse_database(path, number)?));
    }
    let database = parse_database(&first.path, number)?;
    if kind == AddressKind::Cluster {
        if database != 0 {
            return Err(StoreServersError::ClusterDatabase { number });
        }
        return Ok((ServerTopology::Cluster(hosts), 0));
    }
    let server = hosts.into_iter().next().ok_or(StoreServersError::Host { number })?;
    Ok((ServerTopology::Single(server), database))
}

fn parse_database(path: &[String], number: usize) -> Result<i64, StoreServersError> {
    match path {
        [] => Ok(0),
        [database] => {
            database.parse::<u16>().map(i64::from).map_err(|_| StoreServersError::Path { number })
        }
        _ => Err(StoreServersError::Path { number }),
    }
}

fn merge_password(
    credentials: StoreCredentials,
    password: Option<Zeroizing<String>>,
) -> Result<StoreCredentials, StoreServersError> {
    let StoreCredentials { user, password: in_address } = credentials;
    if in_address.is_some() && password.is_some() {
        return Err(StoreServersError::TwoPasswords);
    }
    let password = in_address.or(password);
    if user.is_some() && password.is_none() {
        return Err(StoreServersError::NoPassword);
    }
    Ok(StoreCredentials { user, password })
}

impl ParsedAddress {
    fn parse(url: &str, number: usize) -> Result<Self, StoreServersError> {
        let scheme_error = StoreServersError::Scheme { number };
        let (scheme, rest) = url.trim().split_once("://").ok_or(scheme_error.clone())?;
        let (base, kind) = match scheme.split_once('+') {
            None => (scheme, AddressKind::Server),
            Some((base, "cluster")) => (base, AddressKind::Cluster),
            Some((base, "sentinel")) => (base, AddressKind::Sentinel),
            Some(_) => return Err(scheme_error),
        };
        let is_tls = match base {
            "redis" => false,
            "rediss" => true,
            _ => return Err(scheme_error),
        };
        // An unescaped slash of a password would otherwise end the host.
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (parse_credentials(credentials, number)?, rest),
            None => (StoreCredentials::default(), rest),
        };
        if rest.contains(['?', '#']) {
            return Err(StoreServersError::Path { number });
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if kind == AddressKind::Sentinel { SENTINEL_PORT } else { SERVER_PORT };
        let hosts = hosts
            .split(',')
            .map(|host| ServerAddress::parse(host, port).ok_or(StoreServersError::Host { number }));
        let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
        if hosts.len() > 1 && kind != AddressKind::Sentinel {
            return Err(StoreServersError::SeveralHosts { number });
        }
        let segments = path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned);
        Ok(Self { kind, is_tls, credentials, hosts, path: segments.collect() })
    }
}

/// Parses `USER`, `USER:PASSWORD` or `:PASSWORD`.
fn parse_credentials(text: &str, number: usize) -> Result<StoreCredentials, StoreServersError> {
    let decode = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map(Cow::into_owned).map_err(|_| StoreServersError::Credentials { number })
    };
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let user = if user.is_empty() { None } else { Some(decode(user)?) };
    let password = password.filter(|password| !password.is_empty()).map(decode).transpose()?;
    Ok(StoreCredentials { user, password: password.map(Zeroizing::new) })
}

impl ServerAddress {
    /// Parses `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map_or(Some(default_port), |port| port.parse().ok())?;
        Self::new(host, port)
    }

    /// Returns an address, or `None` if the host is neither an IP address nor a DNS name.
    pub(crate) fn new(host: &str, port: u16) -> Option<Self> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_valid = host.parse::<std::net::Ipv6Addr>().is_ok()
            || (!host.is_empty() && host.len() < 256 && host.chars().all(is_name));
        (is_valid && port != 0).then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for StoreCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "..");
        f.debug_struct("StoreCredentials")
            .field("user", &self.user)
            .field("password", &password)
            .finish()
    }
}

//! Settings of downloads.

use std::time::Duration;

use reqwest::{
    Url,
    header::{self, HeaderMap},
};

/// The validated `[download]` section. Has no `Debug` implementation, since the proxy's URL and the operator's headers
/// may contain secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Homeserver for all requests whose `Host` is not in `homeservers`.
    pub base_homeserver_url: Option<Url>,
    /// Pairs of a request `Host` (lower case; has a port only if the operator configured one) and a base URL.
    pub homeservers: Vec<(String, Url)>,
    /// `http` or `https` proxy for all outbound requests. The proxy resolves host names, so only literal addresses are
    /// checked by this service; the proxy decides which other addresses are reachable.
    pub proxy: Option<Url>,
    /// Headers added to all requests to configured homeservers.
    pub additional_headers: HeaderMap,
    /// Names of request headers that are forwarded, in lower case. Contains no hop-by-hop header.
    pub headers_to_forward: Vec<header::HeaderName>,
    /// Whether the client's address is forwarded in `X-Forwarded-For`.
    pub forward_client_address: bool,
    /// Maximum size of a body as served, in bytes.
    pub max_size: u64,
    /// Time limit for establishing a connection.
    pub connect_timeout: Duration,
    /// Time limit between two chunks of a body, and from an outbound request to its response headers, including
    /// connecting. A client's `timeout_ms` does not extend it.
    pub idle_timeout: Duration,
    /// Time limit for one download, from the first outbound request to the last byte.
    pub total_timeout: Duration,
    /// Minimum rate in bytes per second, measured over 30 s; 0 for no minimum.
    pub min_rate: u64,
    /// Whether discovered homeservers may have addresses that are not globally reachable.
    pub allow_private_addresses: bool,
    /// PEM file of certificates that are trusted in addition to the system's.
    pub ca_certificates: Option<std::path::PathBuf>,
    /// Time to live of cached grants; with zero, each request is authorised by a request to the
    /// homeserver that was sent after it arrived.
    pub authorisation_ttl: Duration,
}

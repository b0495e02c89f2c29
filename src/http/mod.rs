//! HTTP interface of the media proxy API: connections, routes, requests and responses. Parses each request
//! once into the types of `scan`; has no access to jobs, files or scripts.
//!
//! From the socket inwards: [`listener`] and [`server`] accept connections, [`routes`] selects the
//! handler, [`request`] builds a `ScanRequest`, [`handlers`] calls the scanner, `media_response` and
//! [`error`] build the response.

mod activity;
mod body;
mod client;
pub(crate) mod connection;
pub(crate) mod connection_table;
mod encrypted_file;
pub mod error;
mod forward;
mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod handlers;
mod host;
pub mod listener;
mod logging;
mod media_response;
mod range;
pub mod request;
pub mod request_error;
mod response;
mod route_name;
pub mod routes;
pub mod server;

pub use connection::{ConnectionLimits, Peer};

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};
use reqwest::header::HeaderName;

use crate::{
    keys::Keyring,
    media::{self, homeserver::Homeservers},
    metrics::Metrics,
    scan::Scanner,
};

/// Validated `[web]` section.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on.
    pub listen: Listen,
    /// Maximum size of a request body, in bytes.
    pub max_body_size: usize,
    /// Maximum number of open connections, at least 1. A further one takes the place of a connection that waits for a
    /// request.
    pub max_connections: usize,
    /// Maximum time to receive a request header, from its first byte or from the start of the connection.
    pub header_timeout: Duration,
    /// Maximum time to receive a request body, between two successful writes of a response, and between
    /// two requests on a connection.
    pub idle_timeout: Duration,
    /// Minimum rate at which a client must read a response, in bytes per second, measured over 30 s of
    /// blocked writes. 0 disables the check.
    pub min_rate: u64,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Host` are honoured.
    pub trusted_proxies: Vec<TrustedNetwork>,
}

impl Settings {
    /// Returns the limits of a single connection.
    #[must_use]
    pub fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            header: self.header_timeout,
            idle: self.idle_timeout,
            min_rate: self.min_rate,
        }
    }
}

/// An address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// TCP host and port.
    Tcp {
        /// Address literal or host name. `::` accepts IPv4 connections too where the system supports it.
        host: String,
        /// Port; 0 selects a free one.
        port: u16,
    },
    /// Path of a Unix socket. A stale socket at the path is replaced.
    Unix(PathBuf),
}

impl Listen {
    /// Returns whether both addresses are the same, so that only one of them can be bound. TCP port 0 never
    /// conflicts.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self == other && !matches!(self, Self::Tcp { port: 0, .. })
    }
}

/// Network in CIDR notation; a single address has the longest prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrustedNetwork {
    /// Network address, host bits zero.
    pub address: IpAddr,
    /// Prefix length, 0..=32 for IPv4 or 0..=128 for IPv6.
    pub prefix: u8,
}

/// Immutable state that handlers use. A request loads it once from [`CurrentState`].
#[derive(Clone)]
pub struct AppState {
    pub scanner: Scanner,
    /// Selects a homeserver by the request's host.
    pub homeservers: Arc<Homeservers>,
    /// Decrypts `encrypted_body`.
    pub keys: Arc<Keyring>,
    /// Settings for parsing requests.
    pub settings: Arc<RequestSettings>,
    /// Limits of connections accepted from now on.
    pub limits: ConnectionLimits,
    /// Counters of requests and responses.
    pub metrics: Arc<Metrics>,
}

/// Current [`AppState`], replaced as a whole by a reload. A request and the job it starts use the state
/// that was current when the request arrived. Cheap to clone.
#[derive(Clone)]
pub struct CurrentState(Arc<ArcSwap<AppState>>);

impl CurrentState {
    /// Creates the holder with its initial state.
    #[must_use]
    pub fn new(state: AppState) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(state)))
    }

    /// Returns the current state. The guard avoids a shared reference count; beyond eight live guards in a
    /// thread it falls back to one.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<AppState>> {
        self.0.load()
    }

    /// Replaces the state for all later calls of [`CurrentState::load`].
    pub fn replace(&self, state: AppState) {
        self.0.store(Arc::new(state));
    }
}

/// Parts of `[web]` and `[download]` that request parsing needs.
#[derive(Clone, Debug)]
pub struct RequestSettings {
    /// Maximum size of a request body, in bytes.
    pub max_body_size: usize,
    /// Maximum time to receive a request body.
    pub body_timeout: Duration,
    /// Proxies whose forwarding headers are honoured.
    pub trusted_proxies: Vec<TrustedNetwork>,
    /// Request headers that are forwarded to a configured homeserver.
    pub headers_to_forward: Vec<HeaderName>,
    /// Whether the client's address is forwarded as `X-Forwarded-For`.
    pub forward_client_address: bool,
}

impl RequestSettings {
    /// Combines the two validated sections.
    #[must_use]
    pub fn new(web: &Settings, download: &media::Settings) -> Self {
        Self {
            max_body_size: web.max_body_size,
            body_timeout: web.idle_timeout,
            trusted_proxies: web.trusted_proxies.clone(),
            headers_to_forward: download.headers_to_forward.clone(),
            forward_client_address: download.forward_client_address,
        }
    }
}

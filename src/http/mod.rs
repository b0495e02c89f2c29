//! HTTP interface of the media proxy API: connections, routes, requests and responses. Parses each request
//! once into the types of `scan`; has no access to jobs, files or scripts.
//!
//! From the socket inwards: [`listener`] and [`server`] accept connections, [`routes`] selects the
//! handler, [`request`] builds a `ScanRequest`, [`handlers`] calls the scanner, `media_response` and
//! [`error`] build the response.

mod activity;
pub(crate) mod body;
mod client;
pub(crate) mod connection;
pub(crate) mod connection_table;
#[cfg(test)]
mod documentation_tests;
mod encrypted_file;
pub mod error;
mod forward;
mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod handlers;
pub(crate) mod host;
mod incoming_body;
pub mod listener;
mod logging;
mod media_response;
mod range;
pub mod request;
pub mod request_error;
mod request_id;
mod response;
mod route_name;
pub mod routes;
pub mod server;

pub use crate::config::sections::{download::TrustedNetwork, listen::Listen, web::Settings};
pub use connection::{ConnectionLimits, Peer};

use std::{sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};
use reqwest::header::HeaderName;

use crate::{
    keys::Keyring,
    media::{self, homeserver::Homeservers},
    metrics::Metrics,
    scan::Scanner,
};

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
            trusted_proxies: download.trusted_proxies.clone(),
            headers_to_forward: download.headers_to_forward.clone(),
            forward_client_address: download.forward_client_address,
        }
    }
}

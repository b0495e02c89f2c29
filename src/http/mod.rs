//! The contract's HTTP side: connections, routes, requests, answers. Parses everything once; knows
//! the scanner's vocabulary and nothing of jobs, files or scripts.
//!
//! From the socket inwards: [`listener`] and [`server`] take connections, [`routes`] finds the
//! handler, [`request`] makes a `ScanRequest`, [`handlers`] asks the scanner, `media_answer` and
//! [`error`] make the answer.

mod answer;
mod body;
mod client;
mod connection;
mod disposition;
mod encrypted_file;
pub mod error;
mod forward;
pub mod handlers;
pub mod listener;
mod logging;
mod media_answer;
mod range;
pub mod request;
pub mod routes;
pub mod server;

pub use connection::{Limits, Peer};

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};
use reqwest::header::HeaderName;

use crate::{
    keys::Keyring,
    media::{self, homeserver::Homeservers},
    metrics::Metrics,
    scan::Scanner,
};

/// `[web]`, and of `[download]` what concerns incoming requests; checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: Listen,
    /// Bytes of a request body.
    pub max_body_size: usize,
    /// Connections at a time, at least 1; those beyond wait in the kernel's backlog.
    pub max_connections: usize,
    /// For a request's header to arrive whole: from its first byte, or from the connection's start.
    pub header_timeout: Duration,
    /// For a request body to arrive whole, between two bytes of an answer that the client takes,
    /// and for a connection between two requests.
    pub idle_timeout: Duration,
    /// Bytes a second that a client has to take of an answer, judged over 30 s of waiting for it; 0
    /// judges nothing.
    pub min_rate: u64,
    /// Whose `X-Forwarded-For` and `X-Forwarded-Host` are believed: networks in CIDR notation.
    pub trusted_proxies: Vec<Network>,
}

impl Settings {
    /// Those of one connection.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { header: self.header_timeout, idle: self.idle_timeout, min_rate: self.min_rate }
    }
}

/// An address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Host (an address literal or a name) and port; port 0 takes a free one.
    Tcp {
        /// `::` takes IPv4 too where the system allows.
        host: String,
        /// 0..=65535
        port: u16,
    },
    /// A unix socket's path; a stale socket there is replaced.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only one of the two can be listened on.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        self == other && !matches!(self, Self::Tcp { port: 0, .. })
    }
}

/// A network in CIDR notation; a lone address is a network of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Its lowest address.
    pub address: IpAddr,
    /// 0..=32 or 0..=128
    pub prefix: u8,
}

/// What handlers hold: never changed. A request takes it once, from [`Live`].
#[derive(Clone)]
pub struct AppState {
    /// Answers what handlers ask.
    pub scanner: Scanner,
    /// Chooses a homeserver by the request's Host.
    pub homeservers: Arc<Homeservers>,
    /// Opens `encrypted_body`.
    pub keys: Arc<Keyring>,
    /// How requests are read.
    pub settings: Arc<RequestSettings>,
    /// How long connections that come from now on may take over what.
    pub limits: Limits,
    /// Counts answers.
    pub metrics: Arc<Metrics>,
}

/// What is in force. A reload replaces it as a whole: a request goes by what it found when it came, from
/// its first byte that is looked at to its last, and so does the job that it began. Cheap to clone.
#[derive(Clone)]
pub struct Live(Arc<ArcSwap<AppState>>);

impl Live {
    /// This.
    #[must_use]
    pub fn new(state: AppState) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(state)))
    }

    /// What is in force now. Borrowed: that costs no count which all processors share, for eight at a time
    /// on a thread, and beyond that as much as such a count.
    #[must_use]
    pub fn now(&self) -> Guard<Arc<AppState>> {
        self.0.load()
    }

    /// This, from now on.
    pub fn replace(&self, state: AppState) {
        self.0.store(Arc::new(state));
    }
}

/// How requests are read: the parts of `[web]` and `[download]` that handlers need.
#[derive(Clone, Debug)]
pub struct RequestSettings {
    /// Bytes of a request body.
    pub max_body_size: usize,
    /// For a request body to arrive whole.
    pub body_timeout: Duration,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// Request headers that go along to a configured homeserver.
    pub headers_to_forward: Vec<HeaderName>,
    /// Whether the client's address goes along as `X-Forwarded-For`.
    pub forward_client_address: bool,
}

impl RequestSettings {
    /// From the checked configuration.
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

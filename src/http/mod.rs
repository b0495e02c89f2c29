//! The contract's HTTP side: connections, routes, requests, answers. Parses everything once; knows
//! the scanner's vocabulary and nothing of jobs, files or scripts.

use std::{net::IpAddr, path::PathBuf, time::Duration};

/// `[web]`, and of `[download]` what concerns incoming requests; checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: Listen,
    /// Bytes of a request body.
    pub max_body_size: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// For a request's header to arrive whole.
    pub header_timeout: Duration,
    /// Between two bytes of a request body or of an answer, and for an idle connection.
    pub idle_timeout: Duration,
    /// Whose `X-Forwarded-For` and `X-Forwarded-Host` are believed: networks in CIDR notation.
    pub trusted_proxies: Vec<Network>,
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

/// A network in CIDR notation; a lone address is a network of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Its lowest address.
    pub address: IpAddr,
    /// 0..=32 or 0..=128
    pub prefix: u8,
}

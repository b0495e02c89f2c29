//! `[web]`.

use std::time::Duration;

use super::{listen::Listen, prelude::*};

const HOUR: Duration = Duration::from_secs(60 * 60);

settings! {
    /// Validated `[web]` section.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Settings {
        /// Address to listen on.
        pub listen: Listen = restart(group()),
        /// Maximum size of a request body, in bytes.
        pub max_body_size: usize = memory_size(1024..=64 << 20),
        /// Maximum number of open connections, at least 1. A further one takes the place of a connection that waits for
        /// a request.
        pub max_connections: usize = restart(integer(1..=1_000_000)),
        /// Maximum time to receive a request header, from its first byte or from the start of the connection.
        pub header_timeout: Duration = duration(MILLISECOND..=HOUR),
        /// Maximum time to receive a request body, between two successful writes of a response, and between
        /// two requests on a connection.
        pub idle_timeout: Duration = duration(MILLISECOND..=HOUR),
        /// Minimum rate at which a client must read a response, in bytes per second, measured over 30 s of
        /// blocked writes. 0 disables the check.
        pub min_rate: u64 = size(0..=1 << 30),
    }
}

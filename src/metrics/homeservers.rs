//! Counters of requests to homeservers.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::{
    labels::{Authorisation, status_label},
    series::{Counters, counters},
};

/// Counters of requests to homeservers.
#[derive(Debug)]
pub struct HomeserverMetrics {
    fetched_bytes: Counter,
    upstream: Counters<1>,
    authorisations: Counters<1>,
}

impl HomeserverMetrics {
    pub(super) fn new() -> Self {
        let authorisations =
            [Authorisation::Cached, Authorisation::Granted, Authorisation::Refused];
        Self {
            fetched_bytes: Counter::default(),
            upstream: counters("status", []),
            authorisations: counters("result", authorisations.map(Authorisation::name)),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "fetched_bytes",
            "Bytes of media received from homeservers",
            self.fetched_bytes.clone(),
        );
        registry.register(
            "upstream_requests",
            "Requests to homeservers by status (rare ones by class; none: no response)",
            self.upstream.clone(),
        );
        registry.register(
            "authorisations",
            "Access checks for cached media: remembered, or granted or refused by the homeserver",
            self.authorisations.clone(),
        );
    }

    /// Adds bytes received from a homeserver.
    pub fn add_fetched_bytes(&self, bytes: usize) {
        self.fetched_bytes.inc_by(bytes as u64);
    }

    /// Records the status of a homeserver's response, or `None` for a request without a response.
    pub fn record_upstream_response(&self, status: Option<u16>) {
        let status = status.map_or("none", status_label);
        self.upstream.get_or_create(&[("status", status)]).inc();
    }

    /// Records an access check.
    pub fn record_authorisation(&self, result: Authorisation) {
        self.authorisations.get_or_create(&[("result", result.name())]).inc();
    }
}

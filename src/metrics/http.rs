//! Counters of requests, responses and connections.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{
    gauge_guard::GaugeGuard,
    labels::{CacheHit, ROUTES, method_label},
    series::{Counters, Labels, counters, seconds, with_series},
};
use crate::{
    cause::{Cause, server_faults},
    media::status_label,
};

/// Counters of requests, responses and connections.
#[derive(Debug)]
pub struct HttpMetrics {
    requests: Counters<4>,
    unanswered: Counters<1>,
    response_seconds: Family<Labels<1>, Histogram>,
    requests_in_flight: Gauge,
    connections: Gauge,
    sent_bytes: Counter,
    verdicts: Counters<1>,
    errors: Counters<1>,
    cache_hits: Counters<1>,
}

impl HttpMetrics {
    pub(super) fn new() -> Self {
        let responses = ROUTES.map(|(route, method)| response_labels(route, method, "200", ""));
        let routes = ROUTES.map(|(route, _)| [("route", route)]);
        let cache_hits = [CacheHit::Response, CacheHit::InFlightScan, CacheHit::Verdict];
        Self {
            requests: with_series(Family::default(), responses),
            unanswered: counters("route", []),
            response_seconds: with_series(Family::new_with_constructor(seconds), routes),
            requests_in_flight: Gauge::default(),
            connections: Gauge::default(),
            sent_bytes: Counter::default(),
            verdicts: counters("verdict", ["clean", "not_clean", "type_forbidden"]),
            errors: counters("cause", server_faults()),
            cache_hits: counters("kind", cache_hits.map(CacheHit::name)),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_requests",
            "Responses by route, method, status (rare ones by class) and reason of an error response",
            self.requests.clone(),
        );
        registry.register(
            "http_requests_unanswered",
            "Requests that ended without a response: the client disconnected, or the grace period ended",
            self.unanswered.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "Time from receiving a request header to sending the response header",
            self.response_seconds.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests without a response yet",
            self.requests_in_flight.clone(),
        );
        registry.register("http_connections", "Open connections", self.connections.clone());
        registry.register(
            "http_sent_bytes",
            "Bytes of response bodies passed to connections",
            self.sent_bytes.clone(),
        );
        registry.register(
            "verdicts",
            "Verdicts sent to requesters, including cached ones",
            self.verdicts.clone(),
        );
        registry.register(
            "scan_errors",
            "Media requests that ended without a verdict, by cause",
            self.errors.clone(),
        );
        registry.register(
            "cache_hits",
            "Work avoided: the complete response was in memory (answer), a job for the same media was in flight (flight), \
             or the verdict on the content was cached (verdict)",
            self.cache_hits.clone(),
        );
    }

    /// Tracks a request in flight, from its header to its response, until the guard is dropped.
    pub fn track_request(&self) -> GaugeGuard<'_> {
        GaugeGuard::new(&self.requests_in_flight)
    }

    /// Records a response and the time until its header.
    pub fn record_response(
        &self,
        route: &'static str,
        method: &str,
        status: u16,
        reason: &'static str,
        duration: Duration,
    ) {
        let labels = response_labels(route, method_label(method), status_label(status), reason);
        self.requests.get_or_create(&labels).inc();
        let seconds = duration.as_secs_f64();
        self.response_seconds.get_or_create(&[("route", route)]).observe(seconds);
    }

    /// Records a request that ended without a response.
    pub fn record_unanswered(&self, route: &'static str) {
        self.unanswered.get_or_create(&[("route", route)]).inc();
    }

    /// Tracks an open connection until the guard is dropped.
    pub fn track_connection(&self) -> GaugeGuard<'_> {
        GaugeGuard::new(&self.connections)
    }

    /// Adds bytes of a response body.
    pub fn add_sent_bytes(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// Records a verdict sent to a requester.
    pub fn record_verdict(&self, verdict: &'static str) {
        self.verdicts.get_or_create(&[("verdict", verdict)]).inc();
    }

    /// Records a request that ended without a verdict.
    pub fn record_scan_error(&self, cause: Cause) {
        self.errors.get_or_create(&[("cause", cause.as_str())]).inc();
    }

    /// Records avoided work.
    pub fn record_cache_hit(&self, kind: CacheHit) {
        self.cache_hits.get_or_create(&[("kind", kind.name())]).inc();
    }
}

fn response_labels(
    route: &'static str,
    method: &'static str,
    status: &'static str,
    reason: &'static str,
) -> Labels<4> {
    [("route", route), ("method", method), ("status", status), ("reason", reason)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauge_guard_decrements_on_drop() {
        let metrics = HttpMetrics::new();
        let first = metrics.track_request();
        let second = metrics.track_request();
        assert_eq!(metrics.requests_in_flight.get(), 2);
        drop(first);
        drop(second);
        assert_eq!(metrics.requests_in_flight.get(), 0);
    }
}

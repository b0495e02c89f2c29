//! Counters and histograms of events: names, help texts and labels. Gauges of the current state, such as the length
//! of the queue, are computed in `operations`.
//!
//! Label values are `&'static str`, so that input from clients and homeservers cannot create series without bound.
//! Names follow <https://prometheus.io/docs/practices/naming/>.

mod gauge_guard;
mod labels;
mod series;

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub(crate) use self::labels::ROUTES;
pub use self::{
    gauge_guard::GaugeGuard,
    labels::{AuditLineResult, Authorisation, CacheHit, Cause},
    series::Labels,
};
use self::{
    labels::{RELOAD_APPLIED, RELOAD_REJECTED, method_label, status_label},
    series::{Counters, Histograms, Series, counters},
};

/// Upper bounds of histogram buckets in seconds: from a response out of memory to the longest default time limit.
const DURATION_BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Event counters. Recording an event takes nanoseconds.
#[derive(Debug)]
pub struct Metrics {
    requests: Series<ResponseLabels, Counter>,
    unanswered: Counters<1>,
    response_seconds: Histograms<1>,
    requests_in_flight: Gauge,
    connections: Gauge,
    sent_bytes: Counter,
    verdicts: Counters<1>,
    errors: Counters<1>,
    cache_hits: Counters<1>,
    jobs: Counters<1>,
    queue_seconds: Histogram,
    download_seconds: Histogram,
    scan_seconds: Histogram,
    script_seconds: Histogram,
    engines: Counters<2>,
    fetched_bytes: Counter,
    upstream: Counters<1>,
    authorisations: Counters<1>,
    audit_lines: Counters<1>,
    reloads: Counters<1>,
}

/// Labels of a response.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ResponseLabels {
    route: &'static str,
    method: &'static str,
    status: &'static str,
    reason: &'static str,
}

impl Metrics {
    /// Creates all metrics with value 0 and registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let histogram = || Histogram::new(DURATION_BUCKETS);
        let metrics = Self {
            requests: Series::new(
                Family::default(),
                ROUTES.map(|(route, method)| ResponseLabels {
                    route,
                    method,
                    status: "200",
                    reason: "",
                }),
            ),
            unanswered: counters("route", []),
            response_seconds: Series::new(
                Family::new_with_constructor(histogram),
                ROUTES.map(|(route, _)| [("route", route)]),
            ),
            requests_in_flight: Gauge::default(),
            connections: Gauge::default(),
            sent_bytes: Counter::default(),
            verdicts: counters("verdict", ["clean", "not_clean", "type_forbidden"]),
            errors: counters("cause", labels::server_faults()),
            cache_hits: counters(
                "kind",
                [CacheHit::Response, CacheHit::InFlightScan, CacheHit::Verdict].map(CacheHit::name),
            ),
            jobs: counters("result", ["clean", "not_clean", "type_forbidden", "no_verdict"]),
            queue_seconds: histogram(),
            download_seconds: histogram(),
            scan_seconds: histogram(),
            script_seconds: histogram(),
            engines: Series::new(Family::default(), []),
            fetched_bytes: Counter::default(),
            upstream: counters("status", []),
            authorisations: counters(
                "result",
                [Authorisation::Cached, Authorisation::Granted, Authorisation::Refused]
                    .map(Authorisation::name),
            ),
            audit_lines: counters(
                "result",
                [AuditLineResult::Written, AuditLineResult::Lost].map(AuditLineResult::name),
            ),
            reloads: counters("result", [RELOAD_APPLIED, RELOAD_REJECTED]),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("mcs");
        registry.register(
            "http_requests",
            "Responses by route, method, status (rare ones by class) and reason of an error response",
            self.requests.family.clone(),
        );
        registry.register(
            "http_requests_unanswered",
            "Requests that ended without a response: the client disconnected, or the grace period ended",
            self.unanswered.family.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "Time from receiving a request header to sending the response header",
            self.response_seconds.family.clone(),
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
            self.verdicts.family.clone(),
        );
        registry.register(
            "scan_errors",
            "Media requests that ended without a verdict, by cause",
            self.errors.family.clone(),
        );
        registry.register(
            "cache_hits",
            "Work avoided: the complete response was in memory (answer), a job for the same media was in flight (flight), \
             or the verdict on the content was cached (verdict)",
            self.cache_hits.family.clone(),
        );
        registry.register("jobs", "Completed jobs by result", self.jobs.family.clone());
        registry.register(
            "job_queue_seconds",
            "Time jobs waited for a worker",
            self.queue_seconds.clone(),
        );
        registry.register(
            "job_download_seconds",
            "Time to fetch, hash and decrypt the media of a job",
            self.download_seconds.clone(),
        );
        registry.register(
            "job_scan_seconds",
            "Time from the complete download to the verdict, including the wait for a free script slot",
            self.scan_seconds.clone(),
        );
        registry.register(
            "script_seconds",
            "Run time of the scan script; the count is the number of runs",
            self.script_seconds.clone(),
        );
        registry.register(
            "engine_scans",
            "Results by engine: clean, infected, refused, encrypted, limit, too_large, failed, or skipped (because of size or a failure)",
            self.engines.family.clone(),
        );
        registry.register(
            "fetched_bytes",
            "Bytes of media received from homeservers",
            self.fetched_bytes.clone(),
        );
        registry.register(
            "upstream_requests",
            "Requests to homeservers by status (rare ones by class; none: no response)",
            self.upstream.family.clone(),
        );
        registry.register(
            "authorisations",
            "Access checks for cached media: remembered, or granted or refused by the homeserver",
            self.authorisations.family.clone(),
        );
        registry.register("audit_lines", "Audit lines by result", self.audit_lines.family.clone());
        registry.register(
            "reloads",
            "Configuration reloads by result",
            self.reloads.family.clone(),
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
        let (method, status) = (method_label(method), status_label(status));
        self.requests.increment(&ResponseLabels { route, method, status, reason });
        let seconds = duration.as_secs_f64();
        self.response_seconds.with(&[("route", route)], |histogram| histogram.observe(seconds));
    }

    /// Records a request that ended without a response.
    pub fn record_unanswered_request(&self, route: &'static str) {
        self.unanswered.increment(&[("route", route)]);
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
        self.verdicts.increment(&[("verdict", verdict)]);
    }

    /// Records a request that ended without a verdict.
    pub fn record_scan_error(&self, cause: Cause) {
        self.errors.increment(&[("cause", cause.as_str())]);
    }

    /// Records avoided work.
    pub fn record_cache_hit(&self, kind: CacheHit) {
        self.cache_hits.increment(&[("kind", kind.name())]);
    }

    /// Records the start of a job and its time in the queue.
    pub fn record_job_start(&self, waited: Duration) {
        self.queue_seconds.observe(waited.as_secs_f64());
    }

    /// Records the end of a job with the durations of its completed phases.
    pub fn record_job_end(
        &self,
        result: &'static str,
        download: Option<Duration>,
        scan: Option<Duration>,
        script: Option<Duration>,
    ) {
        self.jobs.increment(&[("result", result)]);
        for (histogram, duration) in [
            (&self.download_seconds, download),
            (&self.scan_seconds, scan),
            (&self.script_seconds, script),
        ] {
            if let Some(duration) = duration {
                histogram.observe(duration.as_secs_f64());
            }
        }
    }

    /// Records the result of an engine.
    pub fn record_engine_result(&self, engine: &'static str, result: &'static str) {
        self.engines.increment(&[("engine", engine), ("result", result)]);
    }

    /// Adds bytes received from a homeserver.
    pub fn add_fetched_bytes(&self, bytes: usize) {
        self.fetched_bytes.inc_by(bytes as u64);
    }

    /// Records the status of a homeserver's response, or `None` for a request without a response.
    pub fn record_upstream_response(&self, status: Option<u16>) {
        let status = status.map_or("none", status_label);
        self.upstream.increment(&[("status", status)]);
    }

    /// Records an access check.
    pub fn record_authorisation(&self, result: Authorisation) {
        self.authorisations.increment(&[("result", result.name())]);
    }

    #[cfg(test)]
    pub(crate) fn audit_line_count(&self, result: AuditLineResult) -> u64 {
        self.audit_lines.with(&[("result", result.name())], Counter::get)
    }

    /// Records a reload, applied or rejected.
    pub fn record_reload(&self, applied: bool) {
        let result = if applied { RELOAD_APPLIED } else { RELOAD_REJECTED };
        self.reloads.increment(&[("result", result)]);
    }

    /// Records the result of writing an audit line.
    pub fn record_audit_line(&self, result: AuditLineResult) {
        self.audit_lines.increment(&[("result", result.name())]);
    }
}

/// Creates metrics that are not exported.
impl Default for Metrics {
    fn default() -> Self {
        Self::new(&mut Registry::default())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_text::encode;

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn remote_input_cannot_create_unbounded_series() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let record = |status| {
            let method = format!("M{status}");
            metrics.record_response("unknown", &method, status, "", Duration::ZERO);
            metrics.record_upstream_response(Some(status));
        };
        record(0);
        record(200);
        (100..1000).for_each(record);
        let before = text(&registry).lines().count();
        (0..=u16::MAX).for_each(record);
        let after = text(&registry);
        assert_eq!(after.lines().count(), before);
        let series_count = |name: &str| after.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(series_count("mcs_http_requests_total{"), 25 + ROUTES.len());
        assert_eq!(series_count("mcs_upstream_requests_total{"), 25);
    }

    #[test]
    fn gauge_guard_decrements_on_drop() {
        let metrics = Metrics::default();
        let first = metrics.track_request();
        let second = metrics.track_request();
        assert_eq!(metrics.requests_in_flight.get(), 2);
        drop(first);
        drop(second);
        assert_eq!(metrics.requests_in_flight.get(), 0);
    }
}

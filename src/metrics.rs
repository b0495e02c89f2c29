//! Counters and histograms of events: names, help texts and labels. Gauges of the current state, such as the length
//! of the queue, are computed in `operations`.
//!
//! Label values are `&'static str`, so that input from clients and homeservers cannot create series without bound.
//! Names follow <https://prometheus.io/docs/practices/naming/>.

mod gauge_guard;
mod http;
mod incidents;
mod jobs;
mod labels;
mod rescans;
mod series;

use std::{sync::Arc, time::UNIX_EPOCH};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

pub(crate) use self::labels::ROUTES;
use self::{
    http::HttpMetrics,
    incidents::IncidentMetrics,
    jobs::JobMetrics,
    labels::{RELOAD_APPLIED, RELOAD_REJECTED},
    rescans::RescanMetrics,
    series::{Counters, counters},
};
pub use self::{
    labels::{AuditLineResult, CacheHit},
    series::Labels,
};
use crate::media::FetchCounters;

/// Event counters. Recording an event takes a fraction of a microsecond.
#[derive(Debug)]
pub struct Metrics {
    /// Requests, responses and connections.
    pub http: HttpMetrics,
    /// Scan jobs and engines.
    pub jobs: JobMetrics,
    /// Incidents and their steps.
    pub incidents: IncidentMetrics,
    /// Scans of served media after changes of the engines.
    pub rescans: RescanMetrics,
    /// Requests to homeservers.
    pub homeservers: Arc<FetchCounters>,
    audit_lines: Counters<1>,
    reloads: Counters<1>,
    last_reload_successful: Gauge,
    last_reload_success: Gauge,
}

impl Metrics {
    /// Creates all metrics with value 0 and registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let audit_lines = [AuditLineResult::Written, AuditLineResult::Lost];
        let metrics = Self {
            http: HttpMetrics::new(),
            jobs: JobMetrics::new(),
            incidents: IncidentMetrics::new(),
            rescans: RescanMetrics::new(),
            homeservers: Arc::default(),
            audit_lines: counters("result", audit_lines.map(AuditLineResult::name)),
            reloads: counters("result", [RELOAD_APPLIED, RELOAD_REJECTED]),
            last_reload_successful: Gauge::default(),
            last_reload_success: Gauge::default(),
        };
        // The start has read the configuration as well.
        metrics.set_last_reload(true);
        let registry = registry.sub_registry_with_prefix("mcs");
        metrics.http.register(registry);
        metrics.jobs.register(registry);
        metrics.incidents.register(registry);
        metrics.rescans.register(registry);
        register_homeservers(&metrics.homeservers, registry);
        registry.register("audit_lines", "Audit lines by result", metrics.audit_lines.clone());
        registry.register("reloads", "Configuration reloads by result", metrics.reloads.clone());
        registry.register(
            "config_last_reload_successful",
            "Whether the last reload, or the start, was applied",
            metrics.last_reload_successful.clone(),
        );
        registry.register(
            "config_last_reload_success_timestamp_seconds",
            "Time of the last applied reload, or of the start",
            metrics.last_reload_success.clone(),
        );
        metrics
    }

    /// Records a reload, applied or rejected.
    pub fn record_reload(&self, applied: bool) {
        let result = if applied { RELOAD_APPLIED } else { RELOAD_REJECTED };
        self.reloads.get_or_create(&[("result", result)]).inc();
        self.set_last_reload(applied);
    }

    fn set_last_reload(&self, applied: bool) {
        self.last_reload_successful.set(applied.into());
        if applied {
            let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
            self.last_reload_success.set(now.try_into().unwrap_or(i64::MAX));
        }
    }

    /// Records the result of writing an audit line.
    pub fn record_audit_line(&self, result: AuditLineResult) {
        self.audit_lines.get_or_create(&[("result", result.name())]).inc();
    }

    #[cfg(test)]
    pub(crate) fn audit_line_count(&self, result: AuditLineResult) -> u64 {
        self.audit_lines.get_or_create(&[("result", result.name())]).get()
    }
}

fn register_homeservers(counters: &FetchCounters, registry: &mut Registry) {
    registry.register(
        "fetched_bytes",
        "Bytes of media received from homeservers",
        counters.received_bytes.clone(),
    );
    registry.register(
        "upstream_requests",
        "Requests to homeservers by status (rare ones by class; none: no response)",
        counters.responses.clone(),
    );
    registry.register(
        "authorisations",
        "Access checks for cached media: remembered, or granted or refused by the homeserver",
        counters.authorisations.clone(),
    );
    registry.register(
        "user_lookups",
        "Questions to homeservers for the user of an access token, for the audit log (skipped: too many lines waited)",
        counters.user_lookups.clone(),
    );
}

/// Creates metrics that are not exported.
impl Default for Metrics {
    fn default() -> Self {
        Self::new(&mut Registry::default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::prometheus_text::encode;

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn rejected_reload_keeps_the_time_of_the_last_applied_one() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let started = metrics.last_reload_success.get();
        assert!(started > 1_700_000_000 && metrics.last_reload_successful.get() == 1);
        metrics.last_reload_success.set(7);
        metrics.record_reload(false);
        let state = |metrics: &Metrics| {
            (metrics.last_reload_successful.get(), metrics.last_reload_success.get())
        };
        assert_eq!(state(&metrics), (0, 7));
        metrics.record_reload(true);
        assert!(state(&metrics).0 == 1 && state(&metrics).1 >= started);
    }

    #[test]
    fn remote_input_cannot_create_unbounded_series() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let record = |status| {
            let method = format!("M{status}");
            metrics.http.record_response("unknown", &method, status, "", Duration::ZERO);
            metrics.homeservers.record_response(Some(status));
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
}

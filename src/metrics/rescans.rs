//! Counters and gauges of rescans.

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use super::series::{Counters, counters};

/// Metrics of the pass that scans served media again.
#[derive(Debug)]
pub struct RescanMetrics {
    running: Gauge,
    left: Gauge,
    media: Counters<1>,
    pauses: Counters<1>,
}

impl RescanMetrics {
    pub(super) fn new() -> Self {
        let results = ["clean", "not_clean", "no_verdict", "known", "gone", "elsewhere"];
        let causes = ["token", "homeserver", "rate_limit", "busy", "engines", "store"];
        Self {
            running: Gauge::default(),
            left: Gauge::default(),
            media: counters("result", results),
            pauses: counters("cause", causes),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "rescan_running",
            "Whether served media is being scanned again",
            self.running.clone(),
        );
        registry.register(
            "rescan_media_left",
            "Media that the running rescan has not examined yet",
            self.left.clone(),
        );
        registry.register(
            "rescan_media",
            "Served media of rescans by result: clean, not_clean, no_verdict, known (the content has a verdict), \
             gone (the homeserver lacks it) or elsewhere (not of the homeserver)",
            self.media.clone(),
        );
        registry.register(
            "rescan_pauses",
            "Pauses of rescans by cause: token, homeserver, rate_limit, busy, engines or store",
            self.pauses.clone(),
        );
    }

    /// Sets whether a pass is running, and how many media it has left.
    pub fn set_running(&self, left: Option<u64>) {
        self.running.set(left.is_some().into());
        self.left.set(left.unwrap_or_default().try_into().unwrap_or(i64::MAX));
    }

    /// Returns whether a pass is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.get() != 0
    }

    /// Records the result for media.
    pub fn record(&self, result: &'static str) {
        self.media.get_or_create(&[("result", result)]).inc();
    }

    /// Records a pause.
    pub fn record_pause(&self, cause: &'static str) {
        self.pauses.get_or_create(&[("cause", cause)]).inc();
    }
}

//! Counters of incidents.

use prometheus_client::{metrics::family::Family, registry::Registry};

use super::series::{Counters, counters, with_series};
use crate::scan::engines::ENGINES;

/// Counters of incidents.
#[derive(Debug)]
pub struct IncidentMetrics {
    incidents: Counters<1>,
    steps: Counters<2>,
}

impl IncidentMetrics {
    pub(super) fn new() -> Self {
        let steps = ["quarantine", "webhook", "room"];
        let labels = steps.into_iter().flat_map(|step| {
            ["done", "failed", "given_up"].map(|result| [("step", step), ("result", result)])
        });
        Self {
            incidents: counters("engine", ENGINES),
            steps: with_series(Family::default(), labels),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "incidents",
            "Incidents, by the engine that found malware in plain media",
            self.incidents.clone(),
        );
        registry.register(
            "incident_steps",
            "Steps of incidents (quarantine, webhook, room) by result: done, failed (tried again later) or given_up",
            self.steps.clone(),
        );
    }

    /// Records an incident.
    pub fn record(&self, engine: &'static str) {
        self.incidents.get_or_create(&[("engine", engine)]).inc();
    }

    /// Records the result of a step.
    pub fn record_step(&self, step: &'static str, result: &'static str) {
        self.steps.get_or_create(&[("step", step), ("result", result)]).inc();
    }
}

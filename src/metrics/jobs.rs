//! Counters of scan jobs and engines.

use std::time::Duration;

use prometheus_client::{
    metrics::{family::Family, histogram::Histogram},
    registry::Registry,
};

use super::series::{Counters, Labels, counters, seconds};
use crate::scan::Timings;

/// Counters of scan jobs and engines.
#[derive(Debug)]
pub struct JobMetrics {
    jobs: Counters<1>,
    queue_seconds: Histogram,
    download_seconds: Histogram,
    scan_seconds: Histogram,
    script_seconds: Histogram,
    engines: Counters<2>,
    observed: Counters<1>,
    engine_seconds: Family<Labels<1>, Histogram>,
}

impl JobMetrics {
    pub(super) fn new() -> Self {
        Self {
            jobs: counters("result", ["clean", "not_clean", "type_forbidden", "no_verdict"]),
            queue_seconds: seconds(),
            download_seconds: seconds(),
            scan_seconds: seconds(),
            script_seconds: seconds(),
            engines: Family::default(),
            observed: counters("engine", ["script", "rules", "hashes", "clamd", "icap"]),
            engine_seconds: Family::new_with_constructor(seconds),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("jobs", "Completed jobs by result", self.jobs.clone());
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
            "Results by engine: clean, infected, refused, encrypted, limit, unreadable, inconsistent, too_large, failed, or skipped (because of size or a failure)",
            self.engines.clone(),
        );
        registry.register(
            "observed_findings",
            "Scanned files with a finding that did not refuse them, because the engine or the rule is only observed",
            self.observed.clone(),
        );
        registry.register(
            "engine_seconds",
            "Duration of the examination of a file by engine, without the wait for a free slot; the rules and the lists of hashes share one examination",
            self.engine_seconds.clone(),
        );
    }

    /// Records a finished job with the durations of its completed phases.
    pub fn record(&self, result: &'static str, timings: Timings, script: Option<Duration>) {
        self.jobs.get_or_create(&[("result", result)]).inc();
        for (histogram, duration) in [
            (&self.queue_seconds, timings.queue),
            (&self.download_seconds, timings.download),
            (&self.scan_seconds, timings.scan),
            (&self.script_seconds, script),
        ] {
            if let Some(duration) = duration {
                histogram.observe(duration.as_secs_f64());
            }
        }
    }

    /// Records a finding of an engine that is only observed.
    pub fn record_observed(&self, engine: &'static str) {
        self.observed.get_or_create(&[("engine", engine)]).inc();
    }

    /// Records the result of an engine, and its duration if it ran.
    pub fn record_engine(
        &self,
        engine: &'static str,
        result: &'static str,
        duration: Option<Duration>,
    ) {
        self.engines.get_or_create(&[("engine", engine), ("result", result)]).inc();
        if let Some(duration) = duration {
            let histogram = self.engine_seconds.get_or_create(&[("engine", engine)]);
            histogram.observe(duration.as_secs_f64());
        }
    }
}

//! Gauges, computed when Prometheus scrapes them: they cost nothing in between and are never stale.

use std::{fmt, time::UNIX_EPOCH};

use mcs_sandbox::Layer;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{health::Health, homeserver_metrics, page::Page, process, store_metrics};
use crate::{
    http::CurrentState,
    incident::OutboxStatus,
    scan::{Scanner, ScannerUsage, WorkerLoad, canary::CanaryState, engines::signature_time},
};

/// Collector of the service's gauges.
pub struct Gauges {
    /// Source of most of the values.
    pub current: CurrentState,
    /// Readiness of the service.
    pub health: Health,
    /// Value of `web.max_connections`.
    pub max_connections: usize,
    /// Whether verdicts are to be stored.
    pub has_store: bool,
    /// The outbox, if incidents are created.
    pub incidents: Option<OutboxStatus>,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").field("health", &self.health).finish_non_exhaustive()
    }
}

impl Collector for Gauges {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let state = self.current.load();
        let scanner = &state.scanner;
        self.service(&mut page, scanner)?;
        signatures(&mut page, scanner)?;
        self.load(&mut page, scanner)?;
        homeserver_metrics::homeservers(&mut page, &state.homeservers.statuses())?;
        process(&mut page)
    }
}

impl Gauges {
    fn service(&self, page: &mut Page<'_>, scanner: &Scanner) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauges("mcs_build_info", "Version of the running service", [(version, 1)])?;
        let ready = u64::from(self.health.not_ready_reason().is_none());
        page.gauge("mcs_ready", "Whether /health/ready reports the service as ready", ready)?;
        if scanner.has_canary() {
            page.gauge(
                "mcs_canary_passed",
                "Whether the last canary check passed",
                u64::from(*self.health.canary.borrow() == CanaryState::Passed),
            )?;
        }
        let observed = scanner.engines().observed();
        page.gauges(
            "mcs_engine_observed",
            "Whether findings of the engine are only observed (on_not_clean)",
            observed.map(|(engine, is_observed)| ([("engine", engine)], u64::from(is_observed))),
        )?;
        let help = "Rules whose matches are only observed (rules.observe)";
        page.gauge("mcs_rules_observed", help, number(scanner.engines().observed_rules()))?;
        let layers = scanner.sandbox().layers();
        let layers =
            Layer::ALL.map(|layer| ([("layer", layer.name())], u64::from(layers.is_active(layer))));
        page.gauges("mcs_sandbox_layer", "Whether a layer of the sandbox is active", layers)
    }

    fn load(&self, page: &mut Page<'_>, scanner: &Scanner) -> fmt::Result {
        let WorkerLoad { busy, overdue, workers, waiting } = scanner.load();
        let ScannerUsage { spool_used, spool_capacity, cache } = scanner.usage();
        page.gauge("mcs_queue_jobs", "Jobs waiting for a worker", number(waiting))?;
        page.gauge("mcs_queue_capacity", "scan.queue_capacity", number(scanner.queue_capacity()))?;
        page.gauge("mcs_workers", "scan.workers", number(workers))?;
        page.gauge("mcs_workers_busy", "Workers with a job", number(busy))?;
        page.gauge(
            "mcs_workers_late",
            "Workers that are still busy long after scan.deadline",
            number(overdue),
        )?;
        page.gauge(
            "mcs_http_connections_limit",
            "web.max_connections",
            number(self.max_connections),
        )?;
        page.gauge("mcs_spool_bytes", "Bytes of scan.max_spool_size in use", spool_used)?;
        page.gauge("mcs_spool_limit_bytes", "scan.max_spool_size", spool_capacity)?;
        let entries = [
            ([("kind", "media")], number(cache.media)),
            ([("kind", "verdict")], number(cache.verdicts)),
            ([("kind", "body")], number(cache.bodies)),
        ];
        let help = "Cache entries, including expired ones";
        page.gauges("mcs_cache_entries", help, entries)?;
        let help = "Memory used by cached bodies";
        page.gauge("mcs_cache_body_bytes", help, cache.body_bytes)?;
        if let Some(status) = &self.incidents {
            outbox(page, status)?;
        }
        if self.has_store { store_metrics::store(page, scanner.verdict_records()) } else { Ok(()) }
    }
}

/// Encodes the time of the signatures of the engines that report it: clamd.
fn signatures(page: &mut Page<'_>, scanner: &Scanner) -> fmt::Result {
    let versions = scanner.engine_versions();
    let times = versions.iter().filter_map(|(engine, version)| {
        let time = signature_time(version.as_deref()?)?;
        Some(([("engine", *engine)], time.duration_since(UNIX_EPOCH).ok()?.as_secs()))
    });
    page.gauges(
        "mcs_engine_signatures_timestamp_seconds",
        "Time of the oldest signatures of the engine's servers, seconds since 1970",
        times,
    )
}

/// Encodes the state of the outbox.
fn outbox(page: &mut Page<'_>, status: &OutboxStatus) -> fmt::Result {
    let (length, age) = status.length_and_age();
    let help = "Incidents with steps that are not done";
    page.gauge("mcs_incident_outbox", help, length)?;
    let help = "Age of the oldest incident with steps that are not done, seconds";
    page.gauge("mcs_incident_outbox_oldest_seconds", help, age)?;
    let help = "Whether this process does the steps of incidents";
    page.gauge("mcs_incident_outbox_owner", help, u64::from(status.is_owner()))?;
    let help = "Incidents that were not created because the outbox was full";
    page.counters("mcs_incident_outbox_overflows", help, [([], status.overflows())])
}

/// Encodes the process metrics; omits those that cannot be read (other systems, restricted `/proc`).
fn process(page: &mut Page<'_>) -> fmt::Result {
    if let Some(stat) = process::stat() {
        page.counter(
            "process_cpu_seconds",
            "User and system CPU time in seconds",
            stat.cpu_seconds,
        )?;
        if let Some(boot_time) = process::boot_time() {
            page.gauge(
                "process_start_time_seconds",
                "Start of the process, seconds since 1970",
                boot_time + stat.started_after_boot,
            )?;
        }
        page.gauge("process_resident_memory_bytes", "Resident memory", stat.resident_bytes)?;
        page.gauge("process_threads", "Number of threads", stat.threads)?;
    }
    if let Some(open) = process::open_fds() {
        page.gauge("process_open_fds", "Number of open file descriptors", open)?;
    }
    if let Some(limit) = process::max_fds() {
        page.gauge("process_max_fds", "Maximum number of open file descriptors", limit)?;
    }
    Ok(())
}

fn number(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

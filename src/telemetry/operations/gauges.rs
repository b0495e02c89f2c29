//! Gauges, computed when Prometheus scrapes them: they cost nothing in between and are never stale.

use std::fmt;

use mcs_sandbox::Layer;
use mcs_store::StoreCounters;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::{health::Health, process};
use crate::{
    http::CurrentState,
    metrics::Labels,
    scan::{Scanner, ScannerUsage, WorkerLoad, cache::VerdictRecords, canary::CanaryState},
};

/// Collector of the service's gauges.
pub struct Gauges {
    /// Source of most of the values.
    pub current: CurrentState,
    /// Readiness of the service.
    pub health: Health,
    /// Value of `web.max_connections`.
    pub max_connections: usize,
    /// Whether verdicts are to be stored in a file.
    pub has_store: bool,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").field("health", &self.health).finish_non_exhaustive()
    }
}

impl Collector for Gauges {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let scanner = &self.current.load().scanner;
        self.service(&mut page, scanner)?;
        self.load(&mut page, scanner)?;
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
        if self.has_store { store(page, scanner.verdict_records()) } else { Ok(()) }
    }
}

/// Encodes the metrics of the verdict store.
fn store(page: &mut Page<'_>, records: Option<&VerdictRecords>) -> fmt::Result {
    let is_up = records.is_some_and(VerdictRecords::is_in_use);
    page.gauge("mcs_store_up", "Whether the store is read and written", u64::from(is_up))?;
    let Some(records) = records else { return Ok(()) };
    let StoreCounters { hits, misses, bad_records, failed_reads, entries, .. } = records.counters();
    let StoreCounters { evicted, failed_writes, dropped_writes, replacements, .. } =
        records.counters();
    page.gauge("mcs_store_records", "Records in the store, including expired ones", entries)?;
    let lookups = [("hit", hits), ("miss", misses)];
    let lookups = lookups.map(|(result, number)| ([("result", result)], number));
    page.counters("mcs_store_lookups", "Lookups in the store by result", lookups)?;
    let help = "Changes dropped from the queue, and failed attempts to write a change";
    let lost = [("failed", failed_writes), ("dropped", dropped_writes)];
    let lost = lost.map(|(result, number)| ([("result", result)], number));
    page.counters("mcs_store_write_failures", help, lost)?;
    for (name, help, number) in [
        ("mcs_store_bad_records", "Altered records that were found and removed", bad_records),
        ("mcs_store_failed_reads", "Lookups that failed because of the disk", failed_reads),
        ("mcs_store_evicted_records", "Records removed as expired or to make room", evicted),
        (
            "mcs_store_replacements",
            "Replacements of a store that was damaged while in use",
            replacements,
        ),
    ] {
        page.counters(name, help, [([], number)])?;
    }
    Ok(())
}

/// Encodes the process metrics; omits those that cannot be read (other systems, restricted `/proc`).
fn process(page: &mut Page<'_>) -> fmt::Result {
    if let Some(stat) = process::stat() {
        page.counter(
            "process_cpu_seconds",
            "User and system CPU time in seconds",
            stat.cpu_seconds,
        )?;
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

/// Encoder of one scrape.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauges(name, help, [([], value)])
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }
}

fn number(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

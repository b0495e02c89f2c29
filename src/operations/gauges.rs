//! What is a state rather than an event: read when Prometheus asks for it, so that it costs nothing
//! in between and is never out of step with what it describes.

use std::fmt;

use mcs_sandbox::Layer;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::{Health, process};
use crate::{
    http::Live,
    metrics::Labels,
    scan::{Held, Load, Scanner, canary::CanaryState},
};

/// The service's state, as Prometheus reads it.
pub struct Gauges {
    /// What holds the most of it.
    pub live: Live,
    /// Whether requests may be sent here.
    pub health: Health,
    /// `web.max_connections`
    pub max_connections: usize,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").field("health", &self.health).finish_non_exhaustive()
    }
}

impl Collector for Gauges {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let scanner = &self.live.now().scanner;
        self.service(&mut page, scanner)?;
        self.load(&mut page, scanner)?;
        process(&mut page)
    }
}

impl Gauges {
    fn service(&self, page: &mut Page<'_>, scanner: &Scanner) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauges("mcs_build_info", "The version that runs", [(version, 1)])?;
        let ready = u64::from(self.health.refusal().is_none());
        page.gauge("mcs_ready", "Whether /health/ready says so", ready)?;
        if scanner.has_canary() {
            page.gauge(
                "mcs_canary_passed",
                "Whether the script knew a bad file from a good one when it was last tried",
                u64::from(*self.health.canary.borrow() == CanaryState::Passed),
            )?;
        }
        let held = scanner.sandbox().layers();
        let layers = Layer::ALL.map(|it| ([("layer", it.name())], u64::from(held.holds(it))));
        page.gauges("mcs_sandbox_layer", "Whether a layer of the sandbox holds", layers)
    }

    fn load(&self, page: &mut Page<'_>, scanner: &Scanner) -> fmt::Result {
        let Load { busy, late, workers, waiting } = scanner.load();
        let Held { spool_used, spool_capacity, cache } = scanner.held();
        page.gauge("mcs_queue_jobs", "Media that wait for a worker", number(waiting))?;
        page.gauge("mcs_queue_capacity", "scan.queue_capacity", number(scanner.queue_capacity()))?;
        page.gauge("mcs_workers", "scan.workers", number(workers))?;
        page.gauge("mcs_workers_busy", "Workers with a job", number(busy))?;
        page.gauge(
            "mcs_workers_late",
            "Workers that should have been done with their job: they hang",
            number(late),
        )?;
        page.gauge(
            "mcs_http_connections_limit",
            "web.max_connections",
            number(self.max_connections),
        )?;
        page.gauge("mcs_spool_bytes", "What scan.max_spool_size is used for", spool_used)?;
        page.gauge("mcs_spool_limit_bytes", "scan.max_spool_size", spool_capacity)?;
        let entries = [
            ([("kind", "media")], number(cache.media)),
            ([("kind", "verdict")], number(cache.verdicts)),
            ([("kind", "body")], number(cache.bodies)),
        ];
        let meaning = "What is remembered, entries whose time is over included";
        page.gauges("mcs_cache_entries", meaning, entries)?;
        let meaning = "Memory that remembered bodies take";
        page.gauge("mcs_cache_body_bytes", meaning, cache.body_bytes)
    }
}

/// What cannot be read (another system, a locked-down `/proc`) is left out.
fn process(page: &mut Page<'_>) -> fmt::Result {
    if let Some(stat) = process::stat() {
        page.counter(
            "process_cpu_seconds",
            "Processor time, user and system, in seconds",
            stat.cpu_seconds,
        )?;
        page.gauge("process_resident_memory_bytes", "Memory in use", stat.resident_bytes)?;
        page.gauge("process_threads", "Threads", stat.threads)?;
    }
    if let Some(open) = process::open_fds() {
        page.gauge("process_open_fds", "Open file descriptors", open)?;
    }
    if let Some(most) = process::max_fds() {
        page.gauge("process_max_fds", "How many there may be", most)?;
    }
    Ok(())
}

/// What is being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, meaning: &str, value: u64) -> fmt::Result {
        self.gauges(name, meaning, [([], value)])
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        meaning: &str,
        values: impl IntoIterator<Item = (Labels<N>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, meaning, None, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, meaning: &str, value: f64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, meaning, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }
}

fn number(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

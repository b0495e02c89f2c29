//! All that is counted, in one place: each metric's name, meaning and labels. Knows nothing of the
//! rest of the service: who sees something happen calls a method here. What is a state rather than an
//! event (a queue's length) is read when it is asked for, in `operations`.
//!
//! Labels are `&'static str`: what a client or a homeserver writes cannot become one, so nobody can
//! make series without end. Names follow <https://prometheus.io/docs/practices/naming/>.

use std::{hash::Hash, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Names and values of one series' labels.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

type Counters<const N: usize> = Series<Labels<N>, Counter>;
type Histograms<const N: usize> = Series<Labels<N>, Histogram>;

/// Upper bounds in seconds: from an answer out of memory to the longest of the default time limits.
const SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Routes, with the method that asks them; what leads to none is `unknown`.
pub(crate) const ROUTES: [(&str, &str); 6] = [
    ("download", "GET"),
    ("thumbnail", "GET"),
    ("scan", "GET"),
    ("download_encrypted", "POST"),
    ("scan_encrypted", "POST"),
    ("public_key", "GET"),
];

/// Causes that an operator is alerted to, of [`crate::scan::ScanError::cause`].
pub(crate) const OUR_CAUSES: [&str; 11] = [
    "not_ready",
    "overloaded",
    "spool_full",
    "deadline_queued",
    "deadline_scanning",
    "script_timeout",
    "script_signal",
    "script_exit_code",
    "sandbox",
    "disk",
    "panicked",
];

/// Where events are counted; nanoseconds each.
#[derive(Debug)]
pub struct Metrics {
    requests: Series<Answer, Counter>,
    unanswered: Counters<1>,
    answer_seconds: Histograms<1>,
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

/// The labels of an answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Answer {
    route: &'static str,
    method: &'static str,
    status: &'static str,
    reason: &'static str,
}

/// What spared work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheHit {
    /// All of the answer was in memory.
    Answer,
    /// Somebody else's job for the same media was under way.
    Flight,
    /// The media was fetched, and what the script says of its content was known.
    Verdict,
}

/// How a requester was found to be allowed a media that is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Authorisation {
    /// The homeserver had said so a moment ago.
    Remembered,
    /// The homeserver was asked, and said yes.
    Granted,
    /// The homeserver was asked, and said no or nothing.
    Refused,
}

/// What became of a line for the audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum AuditLine {
    Written,
    Lost,
}

/// Something that is under way until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Underway<'metrics>(&'metrics Gauge);

impl<'metrics> Underway<'metrics> {
    fn begin(gauge: &'metrics Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// All of them, from 0, told to `registry`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let histogram = || Histogram::new(SECONDS);
        let all = Self {
            requests: Series::new(
                Family::default(),
                ROUTES.map(|(route, method)| Answer { route, method, status: "200", reason: "" }),
            ),
            unanswered: counters("route", []),
            answer_seconds: Series::new(
                Family::new_with_constructor(histogram),
                ROUTES.map(|(route, _)| [("route", route)]),
            ),
            requests_in_flight: Gauge::default(),
            connections: Gauge::default(),
            sent_bytes: Counter::default(),
            verdicts: counters("verdict", ["clean", "not_clean", "type_forbidden"]),
            errors: counters("cause", OUR_CAUSES),
            cache_hits: counters(
                "kind",
                [CacheHit::Answer, CacheHit::Flight, CacheHit::Verdict].map(CacheHit::name),
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
                [Authorisation::Remembered, Authorisation::Granted, Authorisation::Refused]
                    .map(Authorisation::name),
            ),
            audit_lines: counters(
                "result",
                [AuditLine::Written, AuditLine::Lost].map(AuditLine::name),
            ),
            reloads: counters("result", [TAKEN_OVER, REFUSED]),
        };
        all.tell(registry);
        all
    }

    fn tell(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("mcs");
        registry.register(
            "http_requests",
            "Answers by route, method, status (rare ones by class) and the reason in an error's body",
            self.requests.family.clone(),
        );
        registry.register(
            "http_requests_unanswered",
            "Requests that ended without an answer: the client went away, or the grace time was over",
            self.unanswered.family.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "From a request's header to the header of its answer",
            self.answer_seconds.family.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests that have no answer yet",
            self.requests_in_flight.clone(),
        );
        registry.register("http_connections", "Open connections", self.connections.clone());
        registry.register(
            "http_sent_bytes",
            "Bytes of answers' bodies, handed to their connections",
            self.sent_bytes.clone(),
        );
        registry.register(
            "verdicts",
            "Verdicts given to requesters, remembered ones too",
            self.verdicts.family.clone(),
        );
        registry.register(
            "scan_errors",
            "Requests for a media that ended without a verdict, by cause",
            self.errors.family.clone(),
        );
        registry.register(
            "cache_hits",
            "Work that was spared: the whole answer was in memory, another's job for the same media was under way, \
             or the verdict on the content was known",
            self.cache_hits.family.clone(),
        );
        registry.register(
            "jobs",
            "Media that a worker has fetched, or tried to, by what came of it",
            self.jobs.family.clone(),
        );
        registry.register(
            "job_queue_seconds",
            "Waiting for a worker, by each job that one took",
            self.queue_seconds.clone(),
        );
        registry.register(
            "job_download_seconds",
            "Fetching, hashing and decrypting one media",
            self.download_seconds.clone(),
        );
        registry.register(
            "job_scan_seconds",
            "From a media's arrival to its verdict, waiting for a script's turn included",
            self.scan_seconds.clone(),
        );
        registry.register(
            "script_seconds",
            "One run of the scan script; its count is the number of runs",
            self.script_seconds.clone(),
        );
        registry.register(
            "engine_scans",
            "What each engine came to: clean, not_clean, failed, or skipped (by its size or its failure)",
            self.engines.family.clone(),
        );
        registry.register(
            "fetched_bytes",
            "Bytes of media that homeservers sent, as they came",
            self.fetched_bytes.clone(),
        );
        registry.register(
            "upstream_requests",
            "Requests to homeservers by status (rare ones by class; none: no answer)",
            self.upstream.family.clone(),
        );
        registry.register(
            "authorisations",
            "Whether a requester may have what is here already: remembered for a moment, or asked of the homeserver",
            self.authorisations.family.clone(),
        );
        registry.register(
            "audit_lines",
            "Lines for the audit, and what became of them",
            self.audit_lines.family.clone(),
        );
        registry.register(
            "reloads",
            "Configurations that were read again, and what became of them",
            self.reloads.family.clone(),
        );
    }

    /// A request's header is here.
    pub fn request_begins(&self) -> Underway<'_> {
        Underway::begin(&self.requests_in_flight)
    }

    /// A request's answer begins, after this time.
    pub fn answered(
        &self,
        route: &'static str,
        method: &str,
        status: u16,
        reason: &'static str,
        took: Duration,
    ) {
        let (method, status) = (method_label(method), status_label(status));
        self.requests.count(&Answer { route, method, status, reason });
        let seconds = took.as_secs_f64();
        self.answer_seconds.of(&[("route", route)], |one| one.observe(seconds));
    }

    /// A request ended before its answer.
    pub fn unanswered(&self, route: &'static str) {
        self.unanswered.count(&[("route", route)]);
    }

    /// A connection was accepted.
    pub fn connection_begins(&self) -> Underway<'_> {
        Underway::begin(&self.connections)
    }

    /// Bytes of an answer's body went to its connection.
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// A requester was given this verdict.
    pub fn verdict(&self, verdict: &'static str) {
        self.verdicts.count(&[("verdict", verdict)]);
    }

    /// A requester was given none, for this cause.
    pub fn scan_error(&self, cause: &'static str) {
        self.errors.count(&[("cause", cause)]);
    }

    /// Something was remembered, or shared.
    pub fn cache_hit(&self, kind: CacheHit) {
        self.cache_hits.count(&[("kind", kind.name())]);
    }

    /// A worker has taken a job, which had waited for so long.
    pub fn job_begins(&self, waited: Duration) {
        self.queue_seconds.observe(waited.as_secs_f64());
    }

    /// A job came to this, with what took how long, as far as it got.
    pub fn job_ended(
        &self,
        result: &'static str,
        download: Option<Duration>,
        scan: Option<Duration>,
        script: Option<Duration>,
    ) {
        self.jobs.count(&[("result", result)]);
        for (histogram, took) in [
            (&self.download_seconds, download),
            (&self.scan_seconds, scan),
            (&self.script_seconds, script),
        ] {
            if let Some(took) = took {
                histogram.observe(took.as_secs_f64());
            }
        }
    }

    /// An engine was asked about a media, or would have been.
    pub fn engine(&self, engine: &'static str, result: &'static str) {
        self.engines.count(&[("engine", engine), ("result", result)]);
    }

    /// Bytes of a media came in.
    pub fn fetched(&self, bytes: usize) {
        self.fetched_bytes.inc_by(bytes as u64);
    }

    /// A homeserver answered with this status, or not at all.
    pub fn upstream(&self, status: Option<u16>) {
        let status = status.map_or("none", status_label);
        self.upstream.count(&[("status", status)]);
    }

    /// A requester was found to be allowed, or not.
    pub fn authorisation(&self, result: Authorisation) {
        self.authorisations.count(&[("result", result.name())]);
    }

    #[cfg(test)]
    pub(crate) fn audit_lines(&self, result: AuditLine) -> u64 {
        self.audit_lines.of(&[("result", result.name())], Counter::get)
    }

    /// A configuration was read again, and taken over or refused.
    pub fn reload(&self, taken_over: bool) {
        let result = if taken_over { TAKEN_OVER } else { REFUSED };
        self.reloads.count(&[("result", result)]);
    }

    /// A line for the audit was written, or could not be.
    pub fn audit_line(&self, result: AuditLine) {
        self.audit_lines.count(&[("result", result.name())]);
    }
}

/// What becomes of a reload.
const TAKEN_OVER: &str = "taken_over";
const REFUSED: &str = "refused";

/// Counted, and told to nobody.
impl Default for Metrics {
    fn default() -> Self {
        Self::new(&mut Registry::default())
    }
}

/// Series of these labels. Some are there from the start: a rate of what appears only with its first event misses that.
/// Those are at hand, so that to count takes no lock of the whole family.
#[derive(Debug)]
struct Series<L, M> {
    family: Family<L, M>,
    at_hand: Box<[(L, M)]>,
}

impl<L: Clone + Eq + Hash, M: Clone> Series<L, M> {
    fn new<const N: usize>(family: Family<L, M>, from_the_start: [L; N]) -> Self {
        let at_hand = from_the_start.map(|labels| {
            let one = family.get_or_create(&labels).clone();
            (labels, one)
        });
        Self { family, at_hand: at_hand.into() }
    }

    fn of<R>(&self, labels: &L, tell: impl FnOnce(&M) -> R) -> R {
        match self.at_hand.iter().find(|(known, _)| known == labels) {
            Some((_, one)) => tell(one),
            None => tell(&self.family.get_or_create(labels)),
        }
    }
}

impl<L: Clone + Eq + Hash> Series<L, Counter> {
    fn count(&self, labels: &L) {
        self.of(labels, Counter::inc);
    }
}

fn counters<const N: usize>(label: &'static str, from_the_start: [&'static str; N]) -> Counters<1> {
    Series::new(Family::default(), from_the_start.map(|value| [(label, value)]))
}

impl CacheHit {
    fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Flight => "flight",
            Self::Verdict => "verdict",
        }
    }
}

impl Authorisation {
    fn name(self) -> &'static str {
        match self {
            Self::Remembered => "remembered",
            Self::Granted => "granted",
            Self::Refused => "refused",
        }
    }
}

impl AuditLine {
    fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Lost => "lost",
        }
    }
}

/// A client may invent methods.
fn method_label(method: &str) -> &'static str {
    match method {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// A homeserver may answer with any number, and some of its refusals keep theirs.
fn status_label(status: u16) -> &'static str {
    match status {
        200 => "200",
        206 => "206",
        302 => "302",
        304 => "304",
        307 => "307",
        308 => "308",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        413 => "413",
        416 => "416",
        429 => "429",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        100..=199 => "1xx",
        201..=299 => "2xx",
        300..=399 => "3xx",
        402..=499 => "4xx",
        501..=599 => "5xx",
        _ => "other",
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
    fn nothing_that_others_write_makes_series_without_end() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let tell = |status| {
            let method = format!("M{status}");
            metrics.answered("unknown", &method, status, "", Duration::ZERO);
            metrics.upstream(Some(status));
        };
        tell(0);
        tell(200);
        (100..1000).for_each(tell);
        let before = text(&registry).lines().count();
        (0..=u16::MAX).for_each(tell);
        let after = text(&registry);
        assert_eq!(after.lines().count(), before);
        let of = |name: &str| after.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(of("mcs_http_requests_total{"), 25 + ROUTES.len());
        assert_eq!(of("mcs_upstream_requests_total{"), 25);
    }

    #[test]
    fn what_is_under_way_is_counted_until_it_ends() {
        let metrics = Metrics::default();
        let first = metrics.request_begins();
        let second = metrics.request_begins();
        assert_eq!(metrics.requests_in_flight.get(), 2);
        drop(first);
        drop(second);
        assert_eq!(metrics.requests_in_flight.get(), 0);
    }
}

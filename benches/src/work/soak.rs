//! Soak test: mixed load for a long time with more concurrent requests than the queue and the workers hold. Checks that
//! latencies, memory, descriptors, files and processes stay within bounds.
//!
//! Verdicts and bodies are cached for a few seconds only, so that some thousand files stay new to the service.

mod clients;

use std::{
    fs,
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use self::clients::{
    ASKING, ObservedResponse, PAUSE, RequestKind, ResponseLog, SoakMedia, is_infected, seed,
};
use super::BenchSuite;
use crate::{
    files::{self, KIB, MIB},
    load::LoadResult,
    programs::{self, ServerProcess},
    report::{Axis, BenchReport, Curve, Goal},
};

/// Capacity of the queue and the workers in the default configuration.
const CAPACITY: f64 = 256.0 + 32.0;
/// A small body cache, so that it is full soon.
const SETTINGS: &str = "result_cache.ttl = \"10s\"\nresult_cache.max_total_size = \"8MiB\"\n";
/// First line of infected files.
const INFECTED: &[u8] = b"INFECTED\n";
/// Rejects infected files without starting another process.
const SCRIPT: &str = "#!/bin/sh\nread -r first <\"$1\"\n\
    [ \"$first\" != INFECTED ] || { echo found; exit 1; }\nexit 0\n";
/// Time to release resources after the last response.
const SETTLE_TIME: Duration = Duration::from_secs(10);
/// Number of equal time intervals for the evaluation. The first one is the warm-up.
const INTERVALS: usize = 10;

/// Resources of the service at one moment.
#[derive(Clone, Copy, PartialEq)]
struct ResourceUsage {
    /// Resident memory, MiB.
    memory: f64,
    /// `None` if reading them requires root.
    descriptors: Option<usize>,
    files: usize,
    children: usize,
}

impl ResourceUsage {
    fn measure(service: &ServerProcess, temp: &Path) -> Self {
        Self {
            memory: service.memory("VmRSS") / MIB as f64,
            descriptors: service.descriptors(),
            files: count_files(temp),
            children: service.children(),
        }
    }

    fn is_at_most(&self, other: &Self) -> bool {
        self.descriptors <= other.descriptors
            && self.files <= other.files
            && self.children <= other.children
    }
}

impl BenchSuite {
    /// Runs the soak test for this duration.
    pub(crate) async fn soak(&self, duration: Duration, report: &mut BenchReport) {
        programs::write_script(self.dir(), SCRIPT);
        let nginx = programs::nginx(self.dir()).await;
        let media = self.soak_media().await;
        let service = programs::service(self.dir(), &nginx, SETTINGS).await;
        let temp = self.dir().join("temp");
        sleep(Duration::from_secs(1)).await;
        let before = ResourceUsage::measure(&service, &temp);
        let log = ResponseLog::new(duration);
        let mut usages = Vec::new();
        let mut clients = pin!(clients::run(service.address, &media, &log));
        loop {
            tokio::select! {
                () = &mut clients => break,
                () = sleep(Duration::from_secs(1)) => usages.push(ResourceUsage::measure(&service, &temp)),
            }
        }
        // Closes the service's keep-alive connections to the homeserver.
        drop(nginx);
        let end = Instant::now() + SETTLE_TIME;
        let mut after = ResourceUsage::measure(&service, &temp);
        while !after.is_at_most(&before) && Instant::now() < end {
            sleep(Duration::from_millis(100)).await;
            after = ResourceUsage::measure(&service, &temp);
        }
        report_responses(&log, report);
        report_queue(&log, duration, report);
        report_resources(before, &usages, after, report);
        report_intervals(&log, duration, &usages, report);
    }

    async fn soak_media(&self) -> SoakMedia {
        let directory = self.dir().join("files");
        let mut plain = self.write_files("soak", 4096, 8 * KIB).await;
        for (_, file) in plain.iter_mut().enumerate().filter(|(index, _)| is_infected(*index)) {
            file.modify(&directory, infect);
        }
        let mut encrypted = self.write_files("soak-encrypted", 1024, 8 * KIB).await;
        for (index, file) in encrypted.iter_mut().enumerate() {
            file.modify(&directory, |bytes| {
                if is_infected(index) {
                    infect(bytes);
                }
                files::encrypt(bytes, seed(index));
            });
        }
        let large = self.write_files("soak-large", 64, 4 * MIB).await;
        let cached = self.write_files("soak-known", 4, 100 * KIB).await;
        SoakMedia { directory, plain, encrypted, large, cached }
    }
}

fn infect(bytes: &mut [u8]) {
    bytes[..INFECTED.len()].copy_from_slice(INFECTED);
}

fn report_responses(log: &ResponseLog, report: &mut BenchReport) {
    let responses = log.responses();
    let count = |is_counted: &dyn Fn(&ObservedResponse) -> bool| {
        [responses.iter().filter(|response| is_counted(response)).count() as f64]
    };
    let failures = log.failures();
    for example in &failures.examples {
        eprintln!("wrong response: {example}");
    }
    let goal = Some(Goal::AtMost(0.0));
    report.add_figure("wrong responses", "", &[failures.count as f64], goal);
    let accepted = count(&|response| !response.rejected);
    report.add_figure("accepted requests", "", &accepted, Some(Goal::AtLeast(1.0)));
    let rejected = count(&|response| response.rejected);
    report.add_figure("rejected requests (503 with Retry-After)", "", &rejected, None);
    let disconnects = [log.disconnects() as f64];
    report.add_figure("client disconnects", "", &disconnects, Some(Goal::AtLeast(1.0)));
    for (name, kind) in
        [("responses from memory", RequestKind::Cached), ("responses of 4 MiB", RequestKind::Large)]
    {
        let matching = count(&|response| response.kind == kind && !response.rejected);
        report.add_figure(name, "", &matching, Some(Goal::AtLeast(1.0)));
    }
}

/// Evaluates the queue's length from the responses that clients observed.
fn report_queue(log: &ResponseLog, duration: Duration, report: &mut BenchReport) {
    let interval = duration.as_secs_f64() / INTERVALS as f64;
    let responses = log.responses();
    let observed = duration.as_secs_f64() - interval;
    // From the time when the queue is full until clients stop sending.
    let responses: Vec<&ObservedResponse> = responses
        .iter()
        .filter(|response| {
            response.kind != RequestKind::Cached && response.is_within(interval, observed)
        })
        .collect();
    let [rejected, accepted] = [true, false].map(|rejected| {
        let matching = responses.iter().filter(|response| response.rejected == rejected);
        let latencies = matching.map(|response| response.latency);
        (latencies.clone().count() as f64, latencies.sum::<f64>())
    });
    // Little's law: the average number in the system is the arrival rate times the average latency.
    let in_system = accepted.1 / observed;
    let limit = ("capacity of queue and workers", &[CAPACITY][..]);
    let name = "requests in queue and workers, on average";
    report.add_comparison(name, "", &[in_system], limit, Some(Goal::Within(0.9, 1.02)));
    // Rejected clients retry after the pause.
    let pause = PAUSE.as_secs_f64() + rejected.1 / rejected.0;
    let rejection_rate = (ASKING as f64 - CAPACITY) / pause;
    let share = [rejected.0 / (rejected.0 + accepted.0)];
    let expected = [rejection_rate / (rejection_rate + accepted.0 / observed)];
    let limit = ("expected from the clients above capacity", &expected[..]);
    report.add_comparison("share of 503", "", &share, limit, Some(Goal::Within(0.85, 1.15)));
    let accepted: Vec<&ObservedResponse> =
        responses.into_iter().filter(|response| !response.rejected).collect();
    let latencies = accepted.iter().map(|response| response.latency).collect();
    let p99 = [LoadResult::from_latencies(latencies).percentile(99) / 1000.0];
    let bound = [CAPACITY / (accepted.len() as f64 / observed)];
    let limit = ("capacity divided by rate", &bound[..]);
    report.add_comparison("p99 of accepted requests", "s", &p99, limit, None);
    // The same bound, independent of the rate: requests that are answered while another one waits were ahead of it.
    let mut ends: Vec<f64> = accepted.iter().map(|response| response.at).collect();
    ends.sort_by(f64::total_cmp);
    let count_until = |time: f64| ends.partition_point(|end| *end < time);
    let overtaken = accepted.iter().map(|response| {
        (count_until(response.at) - count_until(response.at - response.latency)) as f64
    });
    let max = [overtaken.fold(0.0, f64::max)];
    let name = "responses to other requests while one waits, at most";
    let limit = ("capacity of queue and workers", &[CAPACITY][..]);
    report.add_comparison(name, "", &max, limit, Some(Goal::AtMost(1.5)));
}

fn report_resources(
    before: ResourceUsage,
    usages: &[ResourceUsage],
    after: ResourceUsage,
    report: &mut BenchReport,
) {
    let after_warm_up = &usages[usages.len() / INTERVALS..];
    let memory: Vec<f64> = after_warm_up.iter().map(|usage| usage.memory).collect();
    let third = memory.len() / 3;
    let (first, last) = (&memory[..third], &memory[memory.len() - third..]);
    let limit = ("first third", first);
    report.add_comparison("memory, last third", "MiB", last, limit, Some(Goal::AtMost(1.1)));
    let peak = [memory.iter().copied().fold(0.0, f64::max)];
    report.add_figure("peak memory", "MiB", &peak, None);
    let mut add_counts = |name: &str, count: &dyn Fn(&ResourceUsage) -> Option<usize>| {
        let Some(initial) = count(&before) else {
            eprintln!("{name}: reading them requires root");
            return;
        };
        let count = |usage: &ResourceUsage| count(usage).unwrap_or_default() as f64;
        let max = usages.iter().map(count).fold(0.0, f64::max);
        report.add_figure(&format!("{name} before"), "", &[initial as f64], None);
        report.add_figure(&format!("{name} during the run, at most"), "", &[max], None);
        let increase = count(&after) - initial as f64;
        let name = format!("{name} after the run, increase");
        report.add_figure(&name, "", &[increase], Some(Goal::AtMost(0.0)));
    };
    add_counts("descriptors", &|usage| usage.descriptors);
    add_counts("files in scan.temp_directory", &|usage| Some(usage.files));
    add_counts("child processes", &|usage| Some(usage.children));
}

/// Adds a table of resources and latencies for each interval.
fn report_intervals(
    log: &ResponseLog,
    duration: Duration,
    usages: &[ResourceUsage],
    report: &mut BenchReport,
) {
    let names = [
        "memory, MiB",
        "descriptors",
        "files",
        "accepted per second",
        "503 per second",
        "p50, s",
        "p99, s",
        "capacity divided by rate, s",
    ];
    let mut curves = names.map(Curve::new);
    let interval = duration.as_secs_f64() / INTERVALS as f64;
    for number in 0..INTERVALS {
        let begin = number as f64 * interval;
        let latencies = log.accepted(begin, interval);
        let range = usages.len() * number / INTERVALS..usages.len() * (number + 1) / INTERVALS;
        let usages = &usages[range];
        if latencies.is_empty() || usages.is_empty() {
            continue;
        }
        let responses = log.responses();
        let rejected = responses
            .iter()
            .filter(|response| response.rejected && response.is_within(begin, interval))
            .count();
        let rate = latencies.len() as f64 / interval;
        let result = LoadResult::from_latencies(latencies);
        let figures =
            |figure: &dyn Fn(&ResourceUsage) -> f64| usages.iter().map(figure).collect::<Vec<_>>();
        let values = [
            figures(&|usage| usage.memory),
            figures(&|usage| usage.descriptors.unwrap_or_default() as f64),
            figures(&|usage| usage.files as f64),
            vec![rate],
            vec![rejected as f64 / interval],
            vec![result.percentile(50) / 1000.0],
            vec![result.percentile(99) / 1000.0],
            vec![CAPACITY / rate],
        ];
        for (curve, values) in curves.iter_mut().zip(values) {
            curve.add(begin + interval, &values);
        }
    }
    report.add_table("Course of the run", "per interval", Axis::Seconds, curves.into());
}

/// Number of files and directories below a directory.
fn count_files(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => 1 + count_files(&entry.path()),
            _ => 1,
        })
        .sum()
}

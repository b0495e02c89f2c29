//! Start time, idle memory, memory of cache entries and of waiting requests.

use std::{fs, time::Duration};

use tokio::time::sleep;

use super::{API, BenchSuite, CLEAN_VERDICT, EMPTY_SCRIPT, SMALL};
use crate::{
    files::MIB,
    load::{self, RequestSource, get},
    programs::{self, ServerProcess},
    report::{BenchReport, Goal},
};

const STARTS: usize = 21;
const WAITERS: usize = 1000;
/// Long enough for all requests to arrive before the scan ends.
const SCAN_SECONDS: u64 = 4;

impl BenchSuite {
    pub(super) async fn start(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        let [mut start_times, mut idle] = [const { Vec::new() }; 2];
        for _ in 0..STARTS {
            let (service, start_time) = programs::start_service(self.dir(), nginx, "").await;
            start_times.push(start_time.as_secs_f64() * 1000.0);
            // The service frees memory that only the start needed.
            sleep(Duration::from_millis(500)).await;
            idle.push(service.memory("VmRSS") / MIB as f64);
        }
        let name = "start to first response, canary off";
        report.add_figure(name, "ms", &start_times, Some(Goal::AtMost(100.0)));
        report.add_figure("idle memory (VmRSS)", "MiB", &idle, Some(Goal::AtMost(20.0)));
    }

    pub(super) async fn memory(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        measure_cache_entries(report).await;
        self.measure_waiters(nginx, report).await;
    }

    /// Measures many requests that wait for one scan.
    async fn measure_waiters(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        programs::write_script(self.dir(), &format!("#!/bin/sh\nsleep {SCAN_SECONDS}\n"));
        let media = &self.write_files("awaited", 1, SMALL).await[0];
        let audit = self.dir().join("audit");
        let settings = format!("audit.path = \"{}\"\n", audit.display());
        let service = programs::service(self.dir(), nginx, &settings).await;
        // Opens the connections first, so that they are not part of the cost of waiting.
        let request = get(&format!("{API}/public_key"));
        let connected = load::ExpectedBody::Text("public_key");
        load::run(
            service.address,
            WAITERS,
            &RequestSource::once(vec![request; WAITERS]),
            connected,
        )
        .await;
        service.reset_peak_memory();
        let before = service.memory("VmRSS");
        let request = get(&format!("{API}/scan/{}", media.mxc_path()));
        let requests = RequestSource::once(vec![request; WAITERS]);
        let result = load::run(service.address, WAITERS, &requests, CLEAN_VERDICT).await;
        let each = (service.memory("VmHWM") - before) / 1024.0 / WAITERS as f64;
        drop(service);
        let scans = fs::read_to_string(&audit).unwrap().lines().count();
        programs::write_script(self.dir(), EMPTY_SCRIPT);
        let name = "1000 requests for one file: scans";
        report.add_figure(name, "", &[scans as f64], Some(Goal::AtMost(1.0)));
        report.add_figure("memory per waiting request and connection", "KiB", &[each], None);
        let delay = result.percentile(100) / 1000.0 - SCAN_SECONDS as f64;
        report.add_figure("last response after the scan's end", "s", &[delay], None);
    }
}

/// Measures caches of different sizes, each in a separate process.
async fn measure_cache_entries(report: &mut BenchReport) {
    let [mut bytes, mut many, mut plain, mut few] = [const { Vec::new() }; 4];
    for _ in 0..5 {
        let [_, lookup, _] = cache_entry_cost(1_000).await;
        few.push(lookup);
        let [size, lookup, limit] = cache_entry_cost(100_000).await;
        bytes.push(size);
        many.push(lookup);
        plain.push(limit);
    }
    let name = "one of 100 000 cache entries, media and verdict";
    report.add_figure(name, "bytes", &bytes, Some(Goal::AtMost(640.0)));
    let name = "lookup of media and verdict";
    let limit = ("in plain maps with entries of this size", &*plain);
    report.add_comparison(name, "ns", &many, limit, None);
    report.add_comparison(name, "ns", &many, ("with 1 000 entries", &few), None);
}

/// Returns bytes per entry, nanoseconds per lookup, and nanoseconds per lookup in plain maps.
pub(super) async fn cache_entry_cost(count: u32) -> [f64; 3] {
    let program = std::env::current_exe().unwrap();
    let text = programs::output(&program, &["cache-entries", &count.to_string()]).await;
    let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap());
    [(); 3].map(|()| numbers.next().unwrap())
}

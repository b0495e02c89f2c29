//! Cost by file size, concurrent connections, cached media and workers, with limits where there are any.

use std::time::Duration;

use tokio::time::sleep;

use super::{API, BenchSuite, CLEAN_VERDICT, SMALL, idle::cache_entry_cost};
use crate::{
    files::{KIB, MIB, MediaFile},
    load::{self, ExpectedBody, LoadConnection, LoadResult, RequestSource, get},
    programs::{self, ServerProcess},
    report::{Axis, BenchReport, Curve},
};

/// Number of file sizes, from 1 KiB to 1 GiB, each four times the previous one.
const SIZES: u32 = 11;
/// Files up to this size are measured in more rounds.
const MORE_ROUNDS_LIMIT: u64 = 16 * MIB;
const CONNECTIONS: [u16; 5] = [1, 4, 16, 64, 256];
const CACHED_MEDIA: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
const WORKERS: [u16; 5] = [1, 2, 4, 8, 16];
/// Concurrent requests when varying the workers.
const CONCURRENCY: usize = 16;
/// First scans per round.
const FILES: u64 = 384;
const ROUNDS: usize = 3;
/// Duration of each load run.
const RUN_TIME: Duration = Duration::from_secs(1);
/// Time until the service has freed memory that only the start needed.
const SETTLE_TIME: Duration = Duration::from_millis(500);
/// Raises the default, which rejects media above 256 MiB.
const LARGE: &str = "download.max_size = \"1GiB\"\n";

impl BenchSuite {
    pub(super) async fn growth(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        self.by_size(nginx, report).await;
        self.by_connections(nginx, report).await;
        by_cached_media(report).await;
        self.by_workers(nginx, report).await;
    }

    /// Measures first downloads, one at a time.
    async fn by_size(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        let [mut time, mut rate] = [(); 2].map(|()| {
            [Curve::new("downloaded, scanned, served"), Curve::new_limit("nginx, static")]
        });
        let mut memory = [Curve::new("service, above idle"), Curve::new_limit("size of the file")];
        let first = &self.write_files("growth-first", 1, KIB).await[0];
        for power in 0..SIZES {
            let size = KIB << (2 * power);
            let media = &self.write_files(&format!("growth-{size}"), 1, size).await[0];
            let body = ExpectedBody::Length(size);
            let [mut service_times, mut limits, mut peaks] = [const { Vec::new() }; 3];
            for _ in 0..if size <= MORE_ROUNDS_LIMIT { 3 * ROUNDS } else { ROUNDS } {
                let mut connection = LoadConnection::open(nginx.address).await;
                connection.measure(&get("/small"), ExpectedBody::Length(2)).await;
                let request = get(&format!("/static/{}", media.name));
                limits.push(connection.measure(&request, body).await);
                // A new service with an empty cache.
                let service = programs::service(self.dir(), nginx, LARGE).await;
                sleep(SETTLE_TIME).await;
                service.reset_peak_memory();
                let idle = service.memory("VmRSS");
                let mut connection = LoadConnection::open(service.address).await;
                // Excludes the additional cost of the first request of a process.
                connection
                    .measure(&get(&format!("{API}/scan/{}", first.mxc_path())), CLEAN_VERDICT)
                    .await;
                let request = get(&format!("{API}/download/{}", media.mxc_path()));
                service_times.push(connection.measure(&request, body).await);
                peaks.push((service.memory("VmHWM") - idle) / MIB as f64);
            }
            let (x, mebibytes) = (size as f64, size as f64 / MIB as f64);
            for (curve, seconds) in [&service_times, &limits].into_iter().enumerate() {
                let figures =
                    |figure: &dyn Fn(&f64) -> f64| seconds.iter().map(figure).collect::<Vec<_>>();
                time[curve].add(x, &figures(&|seconds| seconds * 1000.0));
                rate[curve].add(x, &figures(&|seconds| mebibytes / seconds));
            }
            memory[0].add(x, &peaks);
            memory[1].add(x, &[mebibytes]);
        }
        report.add_panel("Time of a first download", "ms", Axis::Size, time.into());
        report.add_table("Rate of a first download", "MiB per second", Axis::Size, rate.into());
        report.add_panel("Peak memory", "MiB", Axis::Size, memory.into());
    }

    /// Measures downloads of 100 KiB from memory, and first scans of files of that size.
    async fn by_connections(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        let [mut rate, mut p50, mut p99] = [(); 3].map(|()| {
            [Curve::new("from memory"), Curve::new("first scan"), Curve::new_limit("nginx, static")]
        });
        let media = self.write_files("growth-scanned", FILES, SMALL).await;
        let cached = &media[0];
        let download = get(&format!("{API}/download/{}", cached.mxc_path()));
        let static_file = get(&format!("/static/{}", cached.name));
        let body = ExpectedBody::Length(SMALL);
        let warm = programs::service(self.dir(), nginx, "").await;
        load::run(warm.address, 1, &RequestSource::once(vec![download.clone()]), body).await;
        for connections in CONNECTIONS {
            let mut results = [const { Vec::new() }; 3];
            for round in 0..ROUNDS {
                // Rotates the order, so that no candidate is always first.
                for turn in 0..results.len() {
                    let kind = (turn + round) % results.len();
                    let connections = usize::from(connections);
                    let repeated =
                        |request: &Vec<u8>| RequestSource::repeated(request.clone(), RUN_TIME);
                    results[kind].push(match kind {
                        0 => load::run(warm.address, connections, &repeated(&download), body).await,
                        1 => self.first_scans(nginx, &media, connections, "").await,
                        _ => {
                            load::run(nginx.address, connections, &repeated(&static_file), body)
                                .await
                        }
                    });
                }
            }
            for (kind, results) in results.iter().enumerate() {
                let x = connections.into();
                rate[kind].add(x, &figures(results, LoadResult::rate));
                p50[kind].add(x, &figures(results, |result| result.percentile(50)));
                p99[kind].add(x, &figures(results, |result| result.percentile(99)));
            }
        }
        let by = Axis::Connections;
        report.add_panel("Responses of 100 KiB", "per second", by, rate.into());
        report.add_table("p50 of responses of 100 KiB", "ms", by, p50.into());
        report.add_panel("p99 of responses of 100 KiB", "ms", by, p99.into());
    }

    async fn by_workers(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        let names = ["one script per processor", "one script per worker"];
        let [mut rate, mut p99] = [names.map(Curve::new), names.map(Curve::new)];
        let media = self.write_files("growth-workers", FILES, SMALL).await;
        for workers in WORKERS {
            let mut results = [const { Vec::new() }; 2];
            for round in 0..ROUNDS {
                for turn in 0..names.len() {
                    let kind = (turn + round) % names.len();
                    let settings = match kind {
                        0 => format!("scan.workers = {workers}\n"),
                        _ => format!("scan.workers = {workers}\nscan.max_scripts = {workers}\n"),
                    };
                    results[kind]
                        .push(self.first_scans(nginx, &media, CONCURRENCY, &settings).await);
                }
            }
            for (kind, results) in results.iter().enumerate() {
                let x = workers.into();
                rate[kind].add(x, &figures(results, LoadResult::rate));
                p99[kind].add(x, &figures(results, |result| result.percentile(99)));
            }
        }
        let by = Axis::Workers;
        report.add_panel("First scans of 100 KiB, 16 concurrent", "per second", by, rate.into());
        report.add_panel("p99 of first scans", "ms", by, p99.into());
    }

    /// Scans all files with a new service.
    async fn first_scans(
        &self,
        nginx: &ServerProcess,
        media: &[MediaFile],
        concurrency: usize,
        settings: &str,
    ) -> LoadResult {
        let service = programs::service(self.dir(), nginx, settings).await;
        let request = |file: &MediaFile| get(&format!("{API}/scan/{}", file.mxc_path()));
        let all = media.iter().map(request).collect();
        load::run(service.address, concurrency, &RequestSource::once(all), CLEAN_VERDICT).await
    }
}

async fn by_cached_media(report: &mut BenchReport) {
    let [mut bytes, mut lookup] = ["media and verdict"; 2].map(Curve::new);
    for count in CACHED_MEDIA {
        let [mut sizes, mut times] = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS {
            let [bytes, lookup, _] = cache_entry_cost(count).await;
            sizes.push(bytes);
            times.push(lookup);
        }
        bytes.add(count.into(), &sizes);
        lookup.add(count.into(), &times);
    }
    let by = Axis::CachedMedia;
    report.add_panel("Memory per cache entry", "bytes", by, vec![bytes]);
    report.add_panel("Cache lookup", "ns", by, vec![lookup]);
}

fn figures(results: &[LoadResult], figure: impl Fn(&LoadResult) -> f64) -> Vec<f64> {
    results.iter().map(figure).collect()
}

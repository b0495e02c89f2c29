//! Large files: time of a single scan, of concurrent downloads, and their effect on small requests.

use std::time::Duration;

use tokio::time::sleep;

use super::{API, BenchSuite, CLEAN_VERDICT};
use crate::{
    files::{MIB, MediaFile},
    load::{self, ExpectedBody, LoadConnection, LoadResult, RequestSource, get, post},
    machine,
    programs::{self, ServerProcess},
    report::{BenchReport, Goal},
};

const SIZE: u64 = 200 * MIB;
const BYTES: f64 = 200.0 * 1024.0 * 1024.0;
const ROUNDS: usize = 7;
/// Concurrent downloads.
const COUNT: u64 = 8;
/// Pause between two small requests.
const PAUSE: Duration = Duration::from_millis(2);

impl BenchSuite {
    pub(super) async fn large(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        let media = &self.write_files("large", 1, SIZE).await[0];
        let service = programs::service(self.dir(), nginx, "").await;
        service.reset_peak_memory();
        let idle = service.memory("VmRSS");
        let (mut seconds, mut limits) = (Vec::new(), Vec::new());
        // Each key makes it different media to the cache.
        for seed in 0..u8::try_from(ROUNDS).unwrap() {
            let aes = machine::openssl_speed("aes-256-ctr").await;
            let sha256 = machine::openssl_speed("sha256").await;
            limits.push(BYTES / aes + 2.0 * BYTES / sha256);
            let request = post(&format!("{API}/scan_encrypted"), &media.encrypted_body(seed));
            let result =
                load::run(service.address, 1, &RequestSource::once(vec![request]), CLEAN_VERDICT)
                    .await;
            seconds.push(result.elapsed.as_secs_f64());
        }
        let name = "one encrypted file of 200 MiB until its verdict (includes the script's start)";
        let limit = ("AES once, SHA-256 twice (OpenSSL, one core)", &*limits);
        report.add_comparison(name, "s", &seconds, limit, Some(Goal::AtMost(1.67)));
        let peak = service.memory("VmHWM") - idle;
        report.add_figure("peak memory above idle", "MiB", &[peak / MIB as f64], None);
    }

    pub(super) async fn many(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        let files = self.write_files("many", COUNT, SIZE).await;
        let requests = |path: &dyn Fn(&MediaFile) -> String| {
            files.iter().map(|file| get(&path(file))).collect::<Vec<_>>()
        };
        let downloads = requests(&|file| format!("{API}/download/{}", file.mxc_path()));
        let static_files = requests(&|file| format!("/static/{}", file.name));
        let body = ExpectedBody::Length(SIZE);
        let connections = files.len();
        let [mut seconds, mut limits, mut memory] = [const { Vec::new() }; 3];
        let (mut key, mut small) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let requests = RequestSource::once(static_files.clone());
            let result = load::run(nginx.address, connections, &requests, body).await;
            limits.push(result.elapsed.as_secs_f64());
            let service = programs::service(self.dir(), nginx, "").await;
            service.reset_peak_memory();
            let idle = service.memory("VmRSS");
            let requests = RequestSource::once(downloads.clone());
            let load = load::run(service.address, connections, &requests, body);
            let result = tokio::select! {
                result = load => result,
                () = send_small_requests(&service, nginx, &mut key, &mut small) => return,
            };
            seconds.push(result.elapsed.as_secs_f64());
            memory.push((service.memory("VmHWM") - idle) / MIB as f64);
        }
        let name = "8 files of 200 MiB concurrently, downloaded, scanned and served";
        let limit = ("nginx, static", &*limits);
        report.add_comparison(name, "s", &seconds, limit, Some(Goal::AtMost(3.5)));
        report.add_figure("peak memory above idle", "MiB", &memory, Some(Goal::AtMost(32.0)));
        let [key, small] =
            [key, small].map(|latencies| [LoadResult::from_latencies(latencies).percentile(99)]);
        let name = "p99 of public_key during these downloads";
        let limit = ("nginx, 2 bytes", &small[..]);
        report.add_comparison(name, "ms", &key, limit, Some(Goal::AtMost(3.0)));
    }
}

/// Sends small requests to the service and nginx in turn, until cancelled. Appends the latencies in seconds.
async fn send_small_requests(
    service: &ServerProcess,
    nginx: &ServerProcess,
    key: &mut Vec<f64>,
    small: &mut Vec<f64>,
) {
    let mut to_service = LoadConnection::open(service.address).await;
    let mut to_nginx = LoadConnection::open(nginx.address).await;
    let (key_request, small_request) = (get(&format!("{API}/public_key")), get("/small"));
    loop {
        key.push(to_service.measure(&key_request, ExpectedBody::Text("public_key")).await);
        small.push(to_nginx.measure(&small_request, ExpectedBody::Length(2)).await);
        sleep(PAUSE).await;
    }
}

//! Large media: how fast one goes through, how many go through at once, and what that costs everybody else.

use std::time::Duration;

use tokio::time::sleep;

use super::{API, Bench, CLEAN};
use crate::{
    files::{MIB, Media},
    load::{self, Connection, Expect, Outcome, Requests, get, post},
    machine,
    programs::{self, Program},
    report::{Goal, Report},
};

const SIZE: u64 = 200 * MIB;
const BYTES: f64 = 200.0 * 1024.0 * 1024.0;
const ROUNDS: usize = 7;
/// At once.
const COUNT: u64 = 8;
/// Between two questions of somebody else.
const PAUSE: Duration = Duration::from_millis(2);

impl Bench {
    pub(super) async fn large(&self, nginx: &Program, report: &mut Report) {
        let media = &self.files("large", 1, SIZE).await[0];
        let service = programs::service(self.place(), nginx, "").await;
        service.forget_peak();
        let idle = service.memory("VmRSS");
        let (mut seconds, mut limits) = (Vec::new(), Vec::new());
        // Another key is another media.
        for seed in 0..u8::try_from(ROUNDS).unwrap() {
            let aes = machine::openssl("aes-256-ctr").await;
            let sha256 = machine::openssl("sha256").await;
            limits.push(BYTES / aes + 2.0 * BYTES / sha256);
            let request = post(&format!("{API}/scan_encrypted"), &media.body(seed));
            let outcome =
                load::run(service.address, 1, &Requests::once(vec![request]), CLEAN).await;
            seconds.push(outcome.took.as_secs_f64());
        }
        let what = "one encrypted media of 200 MiB, to its verdict (the script's start included)";
        let limit = ("AES once, SHA-256 twice (OpenSSL, one core)", &*limits);
        report.beside(what, "s", &seconds, limit, Some(Goal::AtMost(1.67)));
        let peak = service.memory("VmHWM") - idle;
        report.figure("memory above idle meanwhile", "MiB", &[peak / MIB as f64], None);
    }

    pub(super) async fn many(&self, nginx: &Program, report: &mut Report) {
        let media = self.files("many", COUNT, SIZE).await;
        let ask = |path: &dyn Fn(&Media) -> String| {
            media.iter().map(|it| get(&path(it))).collect::<Vec<_>>()
        };
        let ours = ask(&|it| format!("{API}/download/{}", it.place()));
        let theirs = ask(&|it| format!("/static/{}", it.name));
        let body = Expect::Length(SIZE);
        let connections = media.len();
        let [mut seconds, mut limits, mut memory] = [const { Vec::new() }; 3];
        let (mut key, mut small) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let requests = Requests::once(theirs.clone());
            limits.push(
                load::run(nginx.address, connections, &requests, body).await.took.as_secs_f64(),
            );
            let service = programs::service(self.place(), nginx, "").await;
            service.forget_peak();
            let idle = service.memory("VmRSS");
            let requests = Requests::once(ours.clone());
            let work = load::run(service.address, connections, &requests, body);
            let outcome = tokio::select! {
                outcome = work => outcome,
                () = others(&service, nginx, &mut key, &mut small) => return,
            };
            seconds.push(outcome.took.as_secs_f64());
            memory.push((service.memory("VmHWM") - idle) / MIB as f64);
        }
        let what = "8 media of 200 MiB at once, fetched, scanned and given out";
        report.beside(what, "s", &seconds, ("nginx, static", &limits), Some(Goal::AtMost(3.5)));
        report.figure("memory above idle meanwhile", "MiB", &memory, Some(Goal::AtMost(32.0)));
        let [ours, limit] = [key, small].map(|latencies| [Outcome::of(latencies).percentile(99)]);
        let limit = ("nginx, 2 bytes", &limit[..]);
        report.beside("p99 of public_key meanwhile", "ms", &ours, limit, Some(Goal::AtMost(3.0)));
    }
}

/// Asks both for something small, in turn, for as long as it is let; keeps the seconds of each.
async fn others(service: &Program, nginx: &Program, key: &mut Vec<f64>, small: &mut Vec<f64>) {
    let mut to_service = Connection::open(service.address).await;
    let mut to_nginx = Connection::open(nginx.address).await;
    let (ask_key, ask_small) = (get(&format!("{API}/public_key")), get("/small"));
    loop {
        key.push(to_service.ask(&ask_key, Expect::Text("public_key")).await);
        small.push(to_nginx.ask(&ask_small, Expect::Length(2)).await);
        sleep(PAUSE).await;
    }
}

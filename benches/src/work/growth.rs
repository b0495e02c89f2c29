//! How cost grows: with a file's size, with how many ask at once, with how much is remembered, with the workers. Each beside
//! its limit where there is one.

use std::time::Duration;

use tokio::time::sleep;

use super::{API, Bench, CLEAN, SMALL, still::remember};
use crate::{
    files::{KIB, MIB, Media},
    load::{self, Connection, Expect, Outcome, Requests, get},
    programs::{self, Program},
    report::{Axis, Curve, Report},
};

/// Each four times the one before: to 1 GiB.
const SIZES: u32 = 11;
/// Files up to this size are measured more often.
const QUICK: u64 = 16 * MIB;
const CONNECTIONS: [u16; 5] = [1, 4, 16, 64, 256];
const REMEMBERED: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
const WORKERS: [u16; 5] = [1, 2, 4, 8, 16];
/// In flight, for the workers.
const AT_A_TIME: usize = 16;
/// Scanned for the first time, in a round.
const FILES: u64 = 384;
const ROUNDS: usize = 3;
/// How long the same is asked for in a round.
const TIME: Duration = Duration::from_secs(1);
/// What a start alone has taken is given back by then.
const SETTLED: Duration = Duration::from_millis(500);
/// By default media above 256 MiB are refused, and one server's have a quarter of the spool.
const LARGE: &str = "download.max_size = \"1GiB\"\nscan.max_spool_size = \"16GiB\"\n";

impl Bench {
    pub(super) async fn growth(&self, nginx: &Program, report: &mut Report) {
        self.by_size(nginx, report).await;
        self.by_connections(nginx, report).await;
        by_remembered(report).await;
        self.by_workers(nginx, report).await;
    }

    /// One download at a time, of what has not been seen.
    async fn by_size(&self, nginx: &Program, report: &mut Report) {
        let [mut time, mut rate] = [(); 2]
            .map(|()| [Curve::new("fetched, scanned, given out"), Curve::limit("nginx, static")]);
        let mut memory = [Curve::new("the service's, above idle"), Curve::limit("the file itself")];
        let first = &self.files("growth-first", 1, KIB).await[0];
        for power in 0..SIZES {
            let size = KIB << (2 * power);
            let media = &self.files(&format!("growth-{size}"), 1, size).await[0];
            let body = Expect::Length(size);
            let [mut ours, mut limits, mut peaks] = [const { Vec::new() }; 3];
            for _ in 0..if size <= QUICK { 3 * ROUNDS } else { ROUNDS } {
                let mut connection = Connection::open(nginx.address).await;
                connection.ask(&get("/small"), Expect::Length(2)).await;
                let request = get(&format!("/static/{}", media.name));
                limits.push(connection.ask(&request, body).await);
                // A new one: it remembers nothing.
                let service = programs::service(self.place(), nginx, LARGE).await;
                sleep(SETTLED).await;
                service.forget_peak();
                let idle = service.memory("VmRSS");
                let mut connection = Connection::open(service.address).await;
                // What only the first request of all pays is not this size's.
                connection.ask(&get(&format!("{API}/scan/{}", first.place())), CLEAN).await;
                let request = get(&format!("{API}/download/{}", media.place()));
                ours.push(connection.ask(&request, body).await);
                peaks.push((service.memory("VmHWM") - idle) / MIB as f64);
            }
            let (at, mebibytes) = (size as f64, size as f64 / MIB as f64);
            for (curve, seconds) in [&ours, &limits].into_iter().enumerate() {
                let of =
                    |figure: &dyn Fn(&f64) -> f64| seconds.iter().map(figure).collect::<Vec<_>>();
                time[curve].add(at, &of(&|it| it * 1000.0));
                rate[curve].add(at, &of(&|it| mebibytes / it));
            }
            memory[0].add(at, &peaks);
            memory[1].add(at, &[mebibytes]);
        }
        report.panel("Time of a first download", "ms", Axis::Size, time.into());
        report.table("The same as a rate", "MiB a second", Axis::Size, rate.into());
        report.panel("Memory at its peak", "MiB", Axis::Size, memory.into());
    }

    /// 100 KiB from memory, and others of that size for the first time.
    async fn by_connections(&self, nginx: &Program, report: &mut Report) {
        let [mut rate, mut usual, mut slow] = [(); 3].map(|()| {
            [Curve::new("from memory"), Curve::new("first scan"), Curve::limit("nginx, static")]
        });
        let media = self.files("growth-scanned", FILES, SMALL).await;
        let known = &media[0];
        let asked = get(&format!("{API}/download/{}", known.place()));
        let served = get(&format!("/static/{}", known.name));
        let body = Expect::Length(SMALL);
        let warm = programs::service(self.place(), nginx, "").await;
        load::run(warm.address, 1, &Requests::once(vec![asked.clone()]), body).await;
        for connections in CONNECTIONS {
            let mut outcomes = [const { Vec::new() }; 3];
            for round in 0..ROUNDS {
                // Nobody is always the first.
                for turn in 0..outcomes.len() {
                    let kind = (turn + round) % outcomes.len();
                    let many = usize::from(connections);
                    let again = |request: &Vec<u8>| Requests::repeated(request.clone(), TIME);
                    outcomes[kind].push(match kind {
                        0 => load::run(warm.address, many, &again(&asked), body).await,
                        1 => self.first_scans(nginx, &media, many, "").await,
                        _ => load::run(nginx.address, many, &again(&served), body).await,
                    });
                }
            }
            for (kind, outcomes) in outcomes.iter().enumerate() {
                let at = connections.into();
                rate[kind].add(at, &of(outcomes, Outcome::rate));
                usual[kind].add(at, &of(outcomes, |it| it.percentile(50)));
                slow[kind].add(at, &of(outcomes, |it| it.percentile(99)));
            }
        }
        let by = Axis::Connections;
        report.panel("Answers of 100 KiB", "a second", by, rate.into());
        report.table("Half of them come within", "ms", by, usual.into());
        report.panel("99 of 100 come within", "ms", by, slow.into());
    }

    async fn by_workers(&self, nginx: &Program, report: &mut Report) {
        let names = ["a script a processor", "a script a worker"];
        let [mut rate, mut slow] = [names.map(Curve::new), names.map(Curve::new)];
        let media = self.files("growth-workers", FILES, SMALL).await;
        for workers in WORKERS {
            let mut outcomes = [const { Vec::new() }; 2];
            for round in 0..ROUNDS {
                for turn in 0..names.len() {
                    let kind = (turn + round) % names.len();
                    let settings = match kind {
                        0 => format!("scan.workers = {workers}\n"),
                        _ => format!("scan.workers = {workers}\nscan.max_scripts = {workers}\n"),
                    };
                    outcomes[kind]
                        .push(self.first_scans(nginx, &media, AT_A_TIME, &settings).await);
                }
            }
            for (kind, outcomes) in outcomes.iter().enumerate() {
                let at = workers.into();
                rate[kind].add(at, &of(outcomes, Outcome::rate));
                slow[kind].add(at, &of(outcomes, |it| it.percentile(99)));
            }
        }
        let by = Axis::Workers;
        report.panel("First scans of 100 KiB, 16 at a time", "a second", by, rate.into());
        report.panel("99 of 100 come within", "ms", by, slow.into());
    }

    /// All of these, by a service that has seen none.
    async fn first_scans(
        &self,
        nginx: &Program,
        media: &[Media],
        at_a_time: usize,
        settings: &str,
    ) -> Outcome {
        let service = programs::service(self.place(), nginx, settings).await;
        let all = media.iter().map(|it| get(&format!("{API}/scan/{}", it.place()))).collect();
        load::run(service.address, at_a_time, &Requests::once(all), CLEAN).await
    }
}

async fn by_remembered(report: &mut Report) {
    let [mut bytes, mut lookup] = ["mxc and content together"; 2].map(Curve::new);
    for count in REMEMBERED {
        let [mut each, mut found] = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS {
            let [bytes, lookup, _] = remember(count).await;
            each.push(bytes);
            found.push(lookup);
        }
        bytes.add(count.into(), &each);
        lookup.add(count.into(), &found);
    }
    let by = Axis::Remembered;
    report.panel("Memory of one remembered media", "bytes", by, vec![bytes]);
    report.panel("Looking one up", "ns", by, vec![lookup]);
}

fn of(outcomes: &[Outcome], figure: impl Fn(&Outcome) -> f64) -> Vec<f64> {
    outcomes.iter().map(figure).collect()
}

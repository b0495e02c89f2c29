//! What the service costs while it does little: its start, its memory, what it remembers, who waits.

use std::{fs, time::Duration};

use tokio::time::sleep;

use super::{API, Bench, CLEAN, EMPTY_SCRIPT, SMALL};
use crate::{
    files::MIB,
    load::{self, Requests, get},
    programs::{self, Program},
    report::{Goal, Report},
};

const STARTS: usize = 21;
const WAITERS: usize = 1000;
/// Until all of them wait.
const SCAN_SECONDS: u64 = 4;

impl Bench {
    pub(super) async fn start(&self, nginx: &Program, report: &mut Report) {
        let [mut took, mut idle] = [const { Vec::new() }; 2];
        for _ in 0..STARTS {
            let (service, ready) = programs::start_service(self.place(), nginx, "").await;
            took.push(ready.as_secs_f64() * 1000.0);
            // What it needed for its start alone is given back.
            sleep(Duration::from_millis(500)).await;
            idle.push(service.memory("VmRSS") / MIB as f64);
        }
        report.figure("start to first answer, canary off", "ms", &took, Some(Goal::AtMost(100.0)));
        report.figure("idle memory (VmRSS)", "MiB", &idle, Some(Goal::AtMost(20.0)));
    }

    pub(super) async fn memory(&self, nginx: &Program, report: &mut Report) {
        remembered(report).await;
        self.waiters(nginx, report).await;
    }

    /// Many who wait for one media.
    async fn waiters(&self, nginx: &Program, report: &mut Report) {
        programs::script(self.place(), &format!("#!/bin/sh\nsleep {SCAN_SECONDS}\n"));
        let media = &self.files("awaited", 1, SMALL).await[0];
        let audit = self.place().join("audit");
        let settings = format!("audit.path = \"{}\"\n", audit.display());
        let service = programs::service(self.place(), nginx, &settings).await;
        // Each has a connection of its own, which is no part of what waiting costs.
        let request = get(&format!("{API}/public_key"));
        let connected = load::Expect::Text("public_key");
        load::run(service.address, WAITERS, &Requests::once(vec![request; WAITERS]), connected)
            .await;
        service.forget_peak();
        let before = service.memory("VmRSS");
        let request = get(&format!("{API}/scan/{}", media.place()));
        let requests = Requests::once(vec![request; WAITERS]);
        let outcome = load::run(service.address, WAITERS, &requests, CLEAN).await;
        let each = (service.memory("VmHWM") - before) / 1024.0 / WAITERS as f64;
        drop(service);
        let scans = fs::read_to_string(&audit).unwrap().lines().count();
        programs::script(self.place(), EMPTY_SCRIPT);
        report.figure(
            "1000 requests for one media: scans",
            "",
            &[scans as f64],
            Some(Goal::AtMost(1.0)),
        );
        report.figure("their connections and waiting, memory for each", "KiB", &[each], None);
        let late = outcome.percentile(100) / 1000.0 - SCAN_SECONDS as f64;
        report.figure("the last answer after the scan's 4 s", "s", &[late], None);
    }
}

/// In a process of its own for each count.
async fn remembered(report: &mut Report) {
    let [mut bytes, mut many, mut plain, mut few] = [const { Vec::new() }; 4];
    for _ in 0..5 {
        let [_, lookup, _] = remember(1_000).await;
        few.push(lookup);
        let [each, lookup, limit] = remember(100_000).await;
        bytes.push(each);
        many.push(lookup);
        plain.push(limit);
    }
    let what = "one of 100 000 remembered media, mxc and content together";
    report.figure(what, "bytes", &bytes, Some(Goal::AtMost(300.0)));
    let what = "looking it up, mxc and content";
    let limit = ("in plain maps of entries as large", &*plain);
    report.beside(what, "ns", &many, limit, None);
    report.beside("the same", "ns", &many, ("of 1 000", &few), None);
}

/// Bytes of each, nanoseconds a lookup, and nanoseconds of one in plain maps.
pub(super) async fn remember(count: u32) -> [f64; 3] {
    let this = std::env::current_exe().unwrap();
    let text = programs::output(&this, &["remember", &count.to_string()]).await;
    let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap());
    [(); 3].map(|()| numbers.next().unwrap())
}

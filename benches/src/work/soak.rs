//! Mixed load at the queue's limit for a long time: more at once than the queue and the workers hold. What is to stay within
//! bounds is held to them.
//!
//! Verdicts and bodies are remembered for seconds only, so that some thousand files are new to the service for as long as it
//! takes.

mod clients;

use std::{
    fs,
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use self::clients::{ASKING, Kind, Log, PAUSE, Seen, SoakMedia, infected, seed};
use super::Bench;
use crate::{
    files::{self, KIB, MIB},
    load::Outcome,
    programs::{self, Program},
    report::{Axis, Curve, Goal, Report},
};

/// What the queue and the workers of the shipped configuration hold.
const PLACES: f64 = 256.0 + 32.0;
/// Memory for bodies is small, so that it is soon full.
const SETTINGS: &str = "result_cache.ttl = \"10s\"\nresult_cache.max_total_size = \"8MiB\"\n";
/// Refuses what begins so, and starts nothing for it.
const INFECTED: &[u8] = b"INFECTED\n";
const SCRIPT: &str = "#!/bin/sh\nread -r first <\"$1\"\n\
    [ \"$first\" != INFECTED ] || { echo found; exit 1; }\nexit 0\n";
/// For what is to be gone after the last answer.
const SETTLED: Duration = Duration::from_secs(10);
/// The time is looked at in so many parts; the first is for warming up.
const PARTS: usize = 10;

/// What the service holds at one moment.
#[derive(Clone, Copy, PartialEq)]
struct Held {
    memory: f64,
    /// None where only root may know.
    descriptors: Option<usize>,
    files: usize,
    children: usize,
}

impl Held {
    fn by(service: &Program, temp: &Path) -> Self {
        Self {
            memory: service.memory("VmRSS") / MIB as f64,
            descriptors: service.descriptors(),
            files: entries(temp),
            children: service.children(),
        }
    }

    fn no_more_than(&self, other: &Self) -> bool {
        self.descriptors <= other.descriptors
            && self.files <= other.files
            && self.children <= other.children
    }
}

impl Bench {
    /// For so long.
    pub(crate) async fn soak(&self, time: Duration, report: &mut Report) {
        programs::script(self.place(), SCRIPT);
        let nginx = programs::nginx(self.place()).await;
        let media = self.soak_media().await;
        let service = programs::service(self.place(), &nginx, SETTINGS).await;
        let temp = self.place().join("temp");
        sleep(Duration::from_secs(1)).await;
        let before = Held::by(&service, &temp);
        let log = Log::new(time);
        let mut held = Vec::new();
        let mut clients = pin!(clients::run(service.address, &media, &log));
        loop {
            tokio::select! {
                () = &mut clients => break,
                () = sleep(Duration::from_secs(1)) => held.push(Held::by(&service, &temp)),
            }
        }
        // And with it the connections that the service keeps to it.
        drop(nginx);
        let end = Instant::now() + SETTLED;
        let mut after = Held::by(&service, &temp);
        while !after.no_more_than(&before) && Instant::now() < end {
            sleep(Duration::from_millis(100)).await;
            after = Held::by(&service, &temp);
        }
        of_answers(&log, report);
        of_queue(&log, time, report);
        of_holding(before, &held, after, report);
        by_parts(&log, time, &held, report);
    }

    async fn soak_media(&self) -> SoakMedia {
        let place = self.place().join("files");
        let mut plain = self.files("soak", 4096, 8 * KIB).await;
        for (_, media) in plain.iter_mut().enumerate().filter(|(index, _)| infected(*index)) {
            media.rewrite(&place, infect);
        }
        let mut encrypted = self.files("soak-encrypted", 1024, 8 * KIB).await;
        for (index, media) in encrypted.iter_mut().enumerate() {
            media.rewrite(&place, |bytes| {
                if infected(index) {
                    infect(bytes);
                }
                files::encrypt(bytes, seed(index));
            });
        }
        let large = self.files("soak-large", 64, 4 * MIB).await;
        let known = self.files("soak-known", 4, 100 * KIB).await;
        SoakMedia { place, plain, encrypted, large, known }
    }
}

fn infect(bytes: &mut [u8]) {
    bytes[..INFECTED.len()].copy_from_slice(INFECTED);
}

fn of_answers(log: &Log, report: &mut Report) {
    let seen = log.seen();
    let count = |which: &dyn Fn(&Seen) -> bool| [seen.iter().filter(|it| which(it)).count() as f64];
    let wrong = log.wrong();
    for what in &wrong.examples {
        eprintln!("wrong: {what}");
    }
    let none = Some(Goal::AtMost(0.0));
    report.figure("wrong answers", "", &[wrong.count as f64], none);
    report.figure("answers", "", &count(&|it| !it.refused), Some(Goal::AtLeast(1.0)));
    report.figure(
        "refused for now (503), all with Retry-After",
        "",
        &count(&|it| it.refused),
        None,
    );
    report.figure("clients that hung up", "", &[log.hung_up() as f64], Some(Goal::AtLeast(1.0)));
    for (name, kind) in [("answers from memory", Kind::Known), ("answers with 4 MiB", Kind::Large)]
    {
        let which = |it: &Seen| it.kind == kind && !it.refused;
        report.figure(name, "", &count(&which), Some(Goal::AtLeast(1.0)));
    }
}

/// How long it is, by what clients see of it.
fn of_queue(log: &Log, time: Duration, report: &mut Report) {
    let part = time.as_secs_f64() / PARTS as f64;
    let seen = log.seen();
    let whole = time.as_secs_f64() - part;
    // From when it is full until nobody comes any more.
    let seen: Vec<&Seen> =
        seen.iter().filter(|it| it.kind != Kind::Known && it.is_within(part, whole)).collect();
    let [refused, accepted] = [true, false].map(|refused| {
        let seconds = seen.iter().filter(|it| it.refused == refused).map(|it| it.seconds);
        (seconds.clone().count() as f64, seconds.sum::<f64>())
    });
    // Little's law: how many there are is how many come, by how long they stay.
    let present = accepted.1 / whole;
    let limit = ("places in the queue, and workers", &[PLACES][..]);
    let what = "requests accepted and not yet answered, on average";
    report.beside(what, "", &[present], limit, Some(Goal::Within(0.9, 1.02)));
    // Who finds no place comes back after the pause.
    let pause = PAUSE.as_secs_f64() + refused.1 / refused.0;
    let refusals = (ASKING as f64 - PLACES) / pause;
    let share = [refused.0 / (refused.0 + accepted.0)];
    let expected = [refusals / (refusals + accepted.0 / whole)];
    let limit = ("by the clients that find no place", &expected[..]);
    report.beside("share of 503", "", &share, limit, Some(Goal::Within(0.85, 1.15)));
    let accepted: Vec<&Seen> = seen.into_iter().filter(|it| !it.refused).collect();
    let outcome = Outcome::of(accepted.iter().map(|it| it.seconds).collect());
    let found = [outcome.percentile(99) / 1000.0];
    let bound = [PLACES / (accepted.len() as f64 / whole)];
    let limit = ("places by rate", &bound[..]);
    report.beside("p99 of accepted requests", "s", &found, limit, None);
    // The same bound, whatever the rate was at the time: who is answered while one waits has a place before it.
    let mut ends: Vec<f64> = accepted.iter().map(|it| it.at).collect();
    ends.sort_by(f64::total_cmp);
    let until = |time: f64| ends.partition_point(|end| *end < time);
    let before = accepted.iter().map(|it| (until(it.at) - until(it.at - it.seconds)) as f64);
    let most = [before.fold(0.0, f64::max)];
    let what = "answers to others while one waits, at most";
    let limit = ("places in the queue, and workers", &[PLACES][..]);
    report.beside(what, "", &most, limit, Some(Goal::AtMost(1.5)));
}

fn of_holding(before: Held, held: &[Held], after: Held, report: &mut Report) {
    let warm = &held[held.len() / PARTS..];
    let memory: Vec<f64> = warm.iter().map(|it| it.memory).collect();
    let third = memory.len() / 3;
    let (first, last) = (&memory[..third], &memory[memory.len() - third..]);
    let limit = ("first third", first);
    report.beside("memory, last third", "MiB", last, limit, Some(Goal::AtMost(1.1)));
    report.figure("memory at its most", "MiB", &[memory.iter().copied().fold(0.0, f64::max)], None);
    let mut count = |what: &str, figure: &dyn Fn(&Held) -> Option<usize>| {
        let Some(at_first) = figure(&before) else {
            eprintln!("{what}: only root may know");
            return;
        };
        let figure = |held: &Held| figure(held).unwrap_or_default() as f64;
        let most = held.iter().map(figure).fold(0.0, f64::max);
        report.figure(&format!("{what} before"), "", &[at_first as f64], None);
        report.figure(&format!("{what} meanwhile, at most"), "", &[most], None);
        let more = figure(&after) - at_first as f64;
        let what = format!("{what} afterwards, more than before");
        report.figure(&what, "", &[more], Some(Goal::AtMost(0.0)));
    };
    count("descriptors", &|it| it.descriptors);
    count("files in scan.temp_directory", &|it| Some(it.files));
    count("processes started", &|it| Some(it.children));
}

/// As it went.
fn by_parts(log: &Log, time: Duration, held: &[Held], report: &mut Report) {
    let names = [
        "memory, MiB",
        "descriptors",
        "files",
        "accepted a second",
        "503 a second",
        "p50, s",
        "p99, s",
        "places by rate, s",
    ];
    let mut curves = names.map(Curve::new);
    let part = time.as_secs_f64() / PARTS as f64;
    for number in 0..PARTS {
        let begin = number as f64 * part;
        let latencies = log.accepted(begin, part);
        let held = &held[held.len() * number / PARTS..held.len() * (number + 1) / PARTS];
        if latencies.is_empty() || held.is_empty() {
            continue;
        }
        let refused =
            log.seen().iter().filter(|it| it.refused && it.is_within(begin, part)).count();
        let rate = latencies.len() as f64 / part;
        let outcome = Outcome::of(latencies);
        let of = |figure: &dyn Fn(&Held) -> f64| held.iter().map(figure).collect::<Vec<_>>();
        let found = [
            of(&|it| it.memory),
            of(&|it| it.descriptors.unwrap_or_default() as f64),
            of(&|it| it.files as f64),
            vec![rate],
            vec![refused as f64 / part],
            vec![outcome.percentile(50) / 1000.0],
            vec![outcome.percentile(99) / 1000.0],
            vec![PLACES / rate],
        ];
        for (curve, found) in curves.iter_mut().zip(found) {
            curve.add(begin + part, &found);
        }
    }
    report.table("As it went", "each tenth", Axis::Seconds, curves.into());
}

/// Files and directories below.
fn entries(directory: &Path) -> usize {
    let Ok(found) = fs::read_dir(directory) else {
        return 0;
    };
    found
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => 1 + entries(&entry.path()),
            _ => 1,
        })
        .sum()
}

//! Measures the real service beside what the machine can do at best, in the same run: a table on standard output, JSON
//! in `target/benches`. `benches/run` builds what this needs and starts it from the checkout's root.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a measurement that cannot run is to say so and end; programs are started as people start them"
)]

mod bare;
mod files;
mod interrupt;
mod load;
mod machine;
mod place;
mod plot;
mod programs;
mod remember;
mod report;
mod starts;
mod work;

use std::{env, path::Path, process::ExitCode, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use report::Report;
use work::{Bench, OTHERS, PARTS};

fn main() -> ExitCode {
    // Thousands of connections.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // In this process alone, before there is another thread.
    if let ["remember", count] = words[..] {
        remember::measure(count.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let ["bare", port, body] = words[..] {
        runtime.block_on(bare::serve(port.parse().unwrap(), body.parse().unwrap()));
        return ExitCode::SUCCESS;
    }
    runtime.block_on(async {
        let interrupted = interrupt::listen();
        tokio::select! {
            code = measure(&words) => code,
            // What was being measured is dropped, and with it its programs and its directory.
            signal = interrupted => {
                eprintln!("interrupted");
                ExitCode::from(128 + signal)
            }
        }
    })
}

async fn measure(words: &[&str]) -> ExitCode {
    match *words {
        ["starts"] => starts::table().await,
        ["soak"] => return soak(words, "600").await,
        ["soak", seconds] => return soak(words, seconds).await,
        ["plot", file] => println!("{}", plot::draw(&report::panels(Path::new(file)))),
        ref parts => {
            let known = [&PARTS[..], &OTHERS].concat();
            if let Some(unknown) = parts.iter().find(|part| !known.contains(part)) {
                let known = known.join(" ");
                eprintln!(
                    "no such part: {unknown}; there are: {known}; and alone: starts soak plot"
                );
                return ExitCode::from(2);
            }
            let mut report = Report::new(words);
            let bench = Bench::new();
            let parts = if parts.is_empty() { &PARTS[..] } else { parts };
            for part in known.iter().filter(|part| parts.contains(part)) {
                eprintln!("measuring: {part}");
                bench.measure(part, &mut report).await;
            }
            report.print();
        }
    }
    ExitCode::SUCCESS
}

/// Where a bound was broken, it fails.
async fn soak(words: &[&str], seconds: &str) -> ExitCode {
    let Some(seconds) = seconds.parse().ok().filter(|seconds| *seconds >= 10) else {
        eprintln!("soak: not a number of seconds, 10 or more: {seconds}");
        return ExitCode::from(2);
    };
    let time = Duration::from_secs(seconds);
    let mut report = Report::new(words);
    Bench::new().soak(time, &mut report).await;
    report.print();
    if report.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

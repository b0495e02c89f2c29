//! Benchmarks the real service and compares it with the best that the machine can do in the same run.
//!
//! Prints a table and saves JSON in `target/benches`. `benches/run` builds the required programs and starts this one
//! from the repository's root.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot run must abort; programs are started like operators start them"
)]

mod baseline;
mod bench_dir;
mod cache_entries;
mod files;
mod homeserver;
mod interrupt;
mod load;
mod machine;
mod plot;
mod programs;
mod report;
mod starts;
mod work;

use std::{env, path::Path, process::ExitCode, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use report::BenchReport;
use work::{BenchSuite, DEFAULT_PARTS, EXTRA_PARTS};

fn main() -> ExitCode {
    // The benchmarks open thousands of connections.
    let (_, hard_limit) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard_limit, hard_limit).unwrap();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Runs before any other thread exists, so that only the cache's memory is measured.
    if let ["cache-entries", count] = arguments[..] {
        cache_entries::measure(count.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let ["baseline", port, body_size] = arguments[..] {
        runtime.block_on(baseline::serve(port.parse().unwrap(), body_size.parse().unwrap()));
        return ExitCode::SUCCESS;
    }
    if let ["homeserver", port] = arguments[..] {
        runtime.block_on(homeserver::serve(port.parse().unwrap()));
        return ExitCode::SUCCESS;
    }
    runtime.block_on(async {
        let interrupted = interrupt::listen();
        tokio::select! {
            code = measure(&arguments) => code,
            // Drops the measurement, which ends its programs and removes its directory.
            signal = interrupted => {
                eprintln!("interrupted");
                ExitCode::from(128 + signal)
            }
        }
    })
}

async fn measure(arguments: &[&str]) -> ExitCode {
    match *arguments {
        ["starts"] => starts::print_table().await,
        ["soak"] => return soak(arguments, "600").await,
        ["soak", seconds] => return soak(arguments, seconds).await,
        ["plot", file] => println!("{}", plot::draw(&report::load_panels(Path::new(file)))),
        ref parts => {
            let all = [&DEFAULT_PARTS[..], &EXTRA_PARTS].concat();
            if let Some(unknown) = parts.iter().find(|part| !all.contains(part)) {
                let all = all.join(" ");
                eprintln!("unknown part: {unknown}; parts: {all}; commands: starts soak plot");
                return ExitCode::from(2);
            }
            let mut report = BenchReport::new(arguments);
            let suite = BenchSuite::new();
            let parts = if parts.is_empty() { &DEFAULT_PARTS[..] } else { parts };
            for part in all.iter().filter(|part| parts.contains(part)) {
                eprintln!("measuring: {part}");
                suite.measure(part, &mut report).await;
            }
            report.print();
        }
    }
    ExitCode::SUCCESS
}

/// Runs the soak test. Fails if a goal is missed.
async fn soak(arguments: &[&str], seconds: &str) -> ExitCode {
    let Some(seconds) = seconds.parse().ok().filter(|seconds| *seconds >= 10) else {
        eprintln!("soak: the duration must be a number of seconds, at least 10, not {seconds:?}");
        return ExitCode::from(2);
    };
    let duration = Duration::from_secs(seconds);
    let mut report = BenchReport::new(arguments);
    BenchSuite::new().soak(duration, &mut report).await;
    report.print();
    if report.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

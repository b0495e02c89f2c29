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
mod programs;
mod remember;
mod report;
mod starts;
mod work;

use std::{env, process::ExitCode};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use report::Report;
use work::{Bench, PARTS};

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
    if let ["bare", port] = words[..] {
        runtime.block_on(bare::serve(port.parse().unwrap()));
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
        ref parts => {
            if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(part)) {
                eprintln!("no such part: {unknown}; there are: {}", PARTS.join(" "));
                return ExitCode::from(2);
            }
            let mut report = Report::new(words);
            let bench = Bench::new();
            for part in PARTS.iter().filter(|part| parts.is_empty() || parts.contains(part)) {
                eprintln!("measuring: {part}");
                bench.measure(part, &mut report).await;
            }
            report.print();
        }
    }
    ExitCode::SUCCESS
}

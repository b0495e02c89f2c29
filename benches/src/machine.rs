//! What is measured on: its kernel, its processors, and how fast they hash and decrypt.

use std::{fs, path::Path, thread};

use crate::programs;

/// One line that names it.
pub(crate) fn name() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let cores = thread::available_parallelism().unwrap();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("", |(_, model)| model);
    format!("Linux {}, {cores} cores ({model})", kernel.trim())
}

/// Processes that wanted a processor in the last minute, on average.
pub(crate) fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    load.split(' ').next().unwrap().parse().unwrap()
}

/// Bytes a second that OpenSSL gets through by this algorithm, on one core, in pieces of 16 KiB.
pub(crate) async fn openssl(algorithm: &str) -> f64 {
    let arguments = ["speed", "-mr", "-seconds", "1", "-bytes", "16384", "-evp", algorithm];
    let text = programs::output(Path::new("openssl"), &arguments).await;
    let line = text.lines().find(|line| line.starts_with("+F:"));
    let speed = line.and_then(|line| line.rsplit(':').next()).expect(&text);
    speed.parse().unwrap()
}

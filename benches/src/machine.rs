//! The machine: kernel, processors, and OpenSSL's hash and cipher speed.

use std::{fs, path::Path, thread};

use crate::programs;

/// Returns a one-line description of the machine.
pub(crate) fn description() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let cores = thread::available_parallelism().unwrap();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("", |(_, model)| model);
    format!("Linux {}, {cores} cores ({model})", kernel.trim())
}

/// Returns the load average of the last minute.
pub(crate) fn load_average() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    load.split(' ').next().unwrap().parse().unwrap()
}

/// Returns OpenSSL's speed for an algorithm in bytes per second, on one core, with blocks of 16 KiB.
pub(crate) async fn openssl_speed(algorithm: &str) -> f64 {
    let arguments = ["speed", "-mr", "-seconds", "1", "-bytes", "16384", "-evp", algorithm];
    let text = programs::output(Path::new("openssl"), &arguments).await;
    let line = text.lines().find(|line| line.starts_with("+F:"));
    let speed = line.and_then(|line| line.rsplit(':').next()).expect(&text);
    speed.parse().unwrap()
}

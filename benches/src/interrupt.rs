//! Interruption by SIGINT, SIGTERM or SIGHUP. Signals that were ignored at the start stay ignored: SIGHUP under nohup, and
//! SIGINT in a shell's background job.

use std::{fs, future::Future};

use futures_util::future::select_all;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Disables the default action of the signals. The returned future completes with the number of the first signal.
pub(crate) fn listen() -> impl Future<Output = u8> {
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].map(|signal| signal as u8);
    let ignored = ignored_signals();
    let handled = signals.into_iter().filter(|number| ignored >> (number - 1) & 1 == 0);
    let waits: Vec<_> = handled
        .map(|number| {
            let mut stream = signal(SignalKind::from_raw(number.into())).unwrap();
            Box::pin(async move {
                stream.recv().await;
                number
            })
        })
        .collect();
    async { select_all(waits).await.0 }
}

/// Returns the mask of ignored signals: proc(5), `SigIgn`.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

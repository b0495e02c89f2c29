//! The end of a measurement from outside: Ctrl-C, a request to end, a terminal that is closed. A run under nohup has the last of
//! these ignored, and one in a shell's background the first: that stays so.

use std::{fs, future::Future};

use futures_util::future::select_all;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// From now on the signals do nothing of their own. Gives the number of the first that comes.
pub(crate) fn listen() -> impl Future<Output = u8> {
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].map(|it| it as u8);
    let ignored = ignored();
    let heard = signals.into_iter().filter(|number| ignored >> (number - 1) & 1 == 0);
    let waits: Vec<_> = heard
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

/// A bit for each signal that whoever started this has had ignored: proc(5), `SigIgn`.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

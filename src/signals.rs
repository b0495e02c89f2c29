//! SIGTERM and SIGINT: the first asks the service to stop, the second ends the process at once. SIGHUP asks it
//! to reload.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

/// SIGHUP, listened for: each notifies, and from here on none ends the process.
pub(crate) fn reloads() -> io::Result<Arc<Notify>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let asked = Arc::new(Notify::new());
    let told = Arc::clone(&asked);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            told.notify_one();
        }
    });
    Ok(asked)
}

/// Both signals, listened for.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// From here on neither signal ends the process by itself.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Until the service is asked to stop. A second signal is then seen to by a task of its own.
    pub(crate) async fn asked(mut self) {
        let first = self.next().await;
        tracing::info!(signal = first.name, "asked to stop; a second signal ends at once");
        tokio::spawn(async move {
            let second = self.next().await;
            tracing::warn!(signal = second.name, "ended by a second signal");
            // The sandbox's helpers see their sockets close: they kill what runs and clean up.
            std::process::exit(second.exit_code);
        });
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received { name: "SIGTERM", exit_code: 128 + 15 },
            _ = self.interrupt.recv() => Received { name: "SIGINT", exit_code: 128 + 2 },
        }
    }
}

struct Received {
    name: &'static str,
    /// As a shell shows a death by this signal.
    exit_code: i32,
}

//! Signals: the first SIGTERM or SIGINT stops the service, a second one ends the process immediately. SIGHUP
//! triggers a reload.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

/// Installs a handler for SIGHUP that notifies the returned [`Notify`].
pub(super) fn reload_signal() -> io::Result<Arc<Notify>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let reload = Arc::new(Notify::new());
    let notify = Arc::clone(&reload);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            notify.notify_one();
        }
    });
    Ok(reload)
}

/// Handlers for SIGTERM and SIGINT.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Installs the handlers. They replace the default action, so neither signal terminates the process any more.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first signal, and returns its name. A task then waits for a second one and ends the process.
    pub(super) async fn received(mut self) -> &'static str {
        let first = self.next().await;
        tokio::spawn(async move {
            let second = self.next().await;
            tracing::warn!(signal = second.name, "second signal received, exiting");
            // The sandbox helpers notice that their sockets close, kill running jobs and clean up.
            std::process::exit(second.exit_code);
        });
        first.name
    }

    async fn next(&mut self) -> ReceivedSignal {
        tokio::select! {
            _ = self.terminate.recv() => ReceivedSignal { name: "SIGTERM", exit_code: 128 + 15 },
            _ = self.interrupt.recv() => ReceivedSignal { name: "SIGINT", exit_code: 128 + 2 },
        }
    }
}

/// Received signal.
struct ReceivedSignal {
    name: &'static str,
    /// Exit code by shell convention: 128 plus the signal number.
    exit_code: i32,
}

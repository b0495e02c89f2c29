//! The accept loop. `axum::serve` has no limit of connections and no time limits, hence this one.
//! Knows sockets and a router, and nothing of what the router does.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinSet},
    time::sleep,
};

use super::{
    Settings,
    connection::{self, Limits, Peer},
    listener::{Listener, Stream},
};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Serves until `shutdown` completes; then the listener is closed, requests under way are
/// answered, idle connections end, and this returns. It waits as long as that takes: the caller
/// bounds the time, and dropping the future cuts what is left.
///
/// While `max_connections` are open nothing is accepted: further clients wait in the kernel's
/// backlog until one of the open connections ends, at the latest by its time limits.
pub async fn serve(
    listener: Listener,
    router: Router,
    settings: &Settings,
    shutdown: impl Future<Output = ()>,
) {
    let limits = Limits { header: settings.header_timeout, idle: settings.idle_timeout };
    let places =
        Arc::new(Semaphore::new(settings.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    // Tasks in a set end with it: dropping this future leaves no connection behind.
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (place, stream, peer) = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = accept(&listener, &places) => accepted,
        };
        let router = router.clone();
        let watcher = graceful.watcher();
        connections.spawn(async move {
            match stream {
                Stream::Tcp(io) => connection::serve(io, peer, router, limits, watcher).await,
                Stream::Unix(io) => connection::serve(io, peer, router, limits, watcher).await,
            }
            drop(place);
        });
    }
    // Before the connections: from now on new clients find the next process, or nobody.
    drop(listener);
    let mut told = pin!(graceful.shutdown());
    let mut all_told = false;
    loop {
        tokio::select! {
            () = &mut told, if !all_told => all_told = true,
            ended = connections.join_next() => match ended {
                Some(ended) => report(ended),
                None => return,
            },
        }
    }
}

/// The next connection and its place among `max_connections`. Cancel-safe.
async fn accept(
    listener: &Listener,
    places: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, Stream, Peer) {
    let mut pause = FIRST_PAUSE;
    let place = match Arc::clone(places).acquire_owned().await {
        Ok(place) => place,
        // Nobody closes it.
        Err(_) => std::future::pending().await,
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (place, stream, peer),
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                // Out of descriptors or memory: the connection stays in the backlog, and accept
                // fails again at once until something is freed.
                tracing::warn!(%error, "cannot accept connections");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// accept(2), "Error handling": Linux passes pending network errors of the new socket on.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted
            | K::ConnectionReset
            | K::ConnectionRefused
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown
            | K::Interrupted
            | K::TimedOut
    )
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

//! Accept loop with a connection limit and time limits, which `axum::serve` lacks.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::{extract::Request, response::Response};
use hyper::service::Service;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::{
    task::{JoinError, JoinSet},
    time::sleep,
};

use super::{
    activity::Activity,
    connection::{self, ConnectionLimits, Peer},
    connection_table::ConnectionTable,
    listener::{Listener, Stream},
};
use crate::metrics::Metrics;

const INITIAL_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Serves until `shutdown` completes, then closes the listener, completes requests in flight, closes idle
/// connections and returns. The shutdown has no time limit of its own; dropping the future closes the remaining
/// connections.
///
/// `routes` and `limits` are called for each connection.
///
/// While `max_connections` are open, a new connection takes the place of one that waits for a request: first of one
/// whose header has been due for 100 ms, then of the longest idle one of the client with the most connections, then of
/// one whose body has been due for 100 ms. While all process a complete request, one accepted connection waits for a
/// place, and further clients wait in the kernel's backlog.
pub async fn serve<S>(
    listener: Listener,
    routes: impl Fn(Peer) -> S,
    max_connections: usize,
    limits: impl Fn() -> ConnectionLimits,
    metrics: &Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Send + 'static,
{
    let table = ConnectionTable::new(max_connections);
    // Accepted, but without a place in the table.
    let mut accepted = None;
    let graceful = GracefulShutdown::new();
    // Dropping the set aborts its tasks, so that dropping this future closes all connections.
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let &mut (_, peer) = match &mut accepted {
                Some(accepted) => accepted,
                none => none.insert(accept(&listener).await),
            };
            table.place(peer.network(), metrics).await
        };
        let place = tokio::select! {
            () = &mut shutdown => break,
            Some(result) = connections.join_next() => {
                log_panic(result);
                continue;
            }
            place = next => place,
        };
        let Some((stream, peer)) = accepted.take() else { continue };
        let (routes, limits) = (routes(peer), limits());
        let watcher = graceful.watcher();
        let metrics = Arc::clone(metrics);
        connections.spawn(async move {
            let _open = metrics.http.track_connection();
            tokio::select! {
                biased;
                () = place.activity.closing() => {}
                () = serve_stream(stream, routes, limits, watcher, &place.activity) => {}
            }
            drop(place);
        });
    }
    drop(accepted);
    // Closed before the connections drain, so that new clients reach the next process or get an error at once.
    drop(listener);
    let mut shutdown = pin!(graceful.shutdown());
    let mut is_signalled = false;
    loop {
        tokio::select! {
            () = &mut shutdown, if !is_signalled => is_signalled = true,
            result = connections.join_next() => match result {
                Some(result) => log_panic(result),
                None => return,
            },
        }
    }
}

async fn serve_stream<S>(
    stream: Stream,
    routes: S,
    limits: ConnectionLimits,
    watcher: Watcher,
    activity: &Arc<Activity>,
) where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    match stream {
        Stream::Tcp(io) => connection::serve(io, routes, limits, watcher, activity).await,
        Stream::Unix(io) => connection::serve(io, routes, limits, watcher, activity).await,
    }
}

/// Accepts the next connection. Cancel-safe.
async fn accept(listener: &Listener) -> (Stream, Peer) {
    let mut backoff = INITIAL_BACKOFF;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_connection_error(&error) => {
                tracing::debug!(%error, "connection failed before it was accepted");
            }
            Err(error) => {
                // Out of descriptors or memory. The connection stays in the backlog, and accept fails again
                // immediately until resources are freed.
                tracing::warn!(%error, "cannot accept connections");
                sleep(backoff).await;
                backoff = (backoff * 2).min(MAX_BACKOFF);
            }
        }
    }
}

/// Returns whether the error concerns a single connection. Linux reports pending network errors of the new
/// socket: accept(2), "Error handling".
fn is_connection_error(error: &io::Error) -> bool {
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

fn log_panic(result: Result<(), JoinError>) {
    if let Err(error) = result {
        tracing::error!(%error, "connection task panicked");
    }
}

#[cfg(test)]
mod tests;

//! The connection that all calls use: opened in the background, bounded in time, and guarded by the circuit breaker.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use redis::{ServerErrorKind, Value};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::counters::count;

use super::{
    breaker::{BreakerChange, CallPermit, CircuitBreaker, FailureKind},
    connection::{
        CallError, CallResult, StoreCall, StoreConnection, StoreConnector, first_error, is_moving,
    },
    counters::SharedAtomics,
    limits::{CONNECT_TIMEOUT, RECONNECT_PAUSE},
    random::NodeRandom,
    watched::WatchedValue,
};

/// Connection to the store.
#[derive(Clone)]
enum LinkState {
    Connecting,
    Ready(Arc<dyn StoreConnection>),
    /// The last attempt failed for this reason. The next one follows after a pause, when it is needed.
    Failed(CallError),
    Closed,
}

/// Identity of a connection. Does not keep it open.
pub(crate) struct ConnectionTag(Option<Weak<dyn StoreConnection>>);

impl PartialEq for ConnectionTag {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(own), Some(other)) => own.ptr_eq(other),
            _ => false,
        }
    }
}

/// Purpose of a call.
#[derive(Clone, Copy)]
enum CallKind<'a> {
    Query(&'a CallPermit<'a>),
    /// `is_fast`: the reply came within the time limit of queries.
    Poll {
        is_fast: bool,
    },
}

impl<'a> CallKind<'a> {
    fn permit(self) -> Option<&'a CallPermit<'a>> {
        match self {
            Self::Query(permit) => Some(permit),
            Self::Poll { .. } => None,
        }
    }
}

/// What a call does if the last attempt to connect failed a moment ago.
#[derive(Clone, Copy)]
enum FailedConnection {
    /// Fails at once.
    Report,
    /// Waits for one more attempt.
    Retry,
}

/// The connection that all calls of a store use.
pub(crate) struct StoreLink {
    connector: Box<dyn StoreConnector>,
    timeout: Duration,
    breaker: CircuitBreaker,
    state: WatchedValue<LinkState>,
    needed: Notify,
    random: Arc<NodeRandom>,
    last_error: Mutex<Option<CallError>>,
    pub(crate) counters: Arc<SharedAtomics>,
}

impl StoreLink {
    pub(crate) fn new(
        connector: Box<dyn StoreConnector>,
        timeout: Duration,
        random: Arc<NodeRandom>,
    ) -> Self {
        Self {
            connector,
            timeout,
            breaker: CircuitBreaker::default(),
            state: WatchedValue::new(LinkState::Connecting),
            needed: Notify::new(),
            random,
            last_error: Mutex::default(),
            counters: Arc::default(),
        }
    }

    /// Returns the last failure of a call.
    pub(crate) fn last_error(&self) -> Option<CallError> {
        self.last_error.lock().clone()
    }

    /// Connects, and connects again when the connection has failed, until the link is closed.
    pub(crate) async fn run(&self) {
        loop {
            let result = timeout(CONNECT_TIMEOUT, self.connector.connect()).await;
            let result = result.unwrap_or(Err(CallError::Timeout));
            let is_failed = result.is_err();
            let next = result.map_or_else(LinkState::Failed, LinkState::Ready);
            if !self.replace_state(next) {
                return;
            }
            if is_failed {
                let pause = u64::try_from(RECONNECT_PAUSE.as_millis()).unwrap_or(0);
                let jitter = Duration::from_millis(self.random.below(pause));
                sleep(RECONNECT_PAUSE + jitter).await;
            }
            // A request that belongs to an earlier attempt finds the state ready.
            loop {
                self.needed.notified().await;
                if !matches!(*self.state.lock(), LinkState::Ready(_)) {
                    break;
                }
            }
            if !self.replace_state(LinkState::Connecting) {
                return;
            }
        }
    }

    /// Replaces the state. Returns `false` if the link was closed.
    fn replace_state(&self, next: LinkState) -> bool {
        self.state.update(|state| {
            let is_open = !matches!(state, LinkState::Closed);
            if is_open {
                *state = next;
            }
            is_open
        })
    }

    /// Ends the connection. All further calls fail.
    pub(crate) fn close(&self) {
        self.state.update(|state| {
            *state = LinkState::Closed;
            true
        });
        self.needed.notify_one();
    }

    pub(crate) fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    /// Sends a call and decodes its replies, if the circuit breaker permits. An invalid reply is a failure of the store.
    pub(crate) async fn query<T>(
        &self,
        call: &StoreCall,
        decode: impl FnOnce(Vec<Value>) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let permit = self.breaker.admit().ok_or(CallError::OutOfUse)?;
        count(&self.counters.store_calls, 1);
        let (connection, replies) = self.send(call, self.timeout, FailedConnection::Report).await;
        self.settle(CallKind::Query(&permit), connection, replies, decode)
    }

    /// As [`query`](Self::query), with another time limit, and also while the store is out of use. Returns also which
    /// connection was used.
    pub(crate) async fn poll<T>(
        &self,
        call: &StoreCall,
        time_limit: Duration,
        decode: impl FnOnce(Vec<Value>) -> Result<T, CallError>,
    ) -> Result<(T, ConnectionTag), CallError> {
        let start = Instant::now();
        let (connection, replies) = self.send(call, time_limit, FailedConnection::Retry).await;
        let is_fast = start.elapsed() <= self.timeout;
        let tag = ConnectionTag(connection.as_ref().map(Arc::downgrade));
        let value = self.settle(CallKind::Poll { is_fast }, connection, replies, decode)?;
        Ok((value, tag))
    }

    /// Returns connections to each server that has keys.
    pub(crate) async fn primaries(&self) -> Result<Vec<Arc<dyn StoreConnection>>, CallError> {
        let connection = timeout(CONNECT_TIMEOUT, self.connection(FailedConnection::Retry)).await;
        let connection = connection.unwrap_or(Err(CallError::Timeout))?;
        let primaries = timeout(CONNECT_TIMEOUT, connection.primaries()).await;
        primaries.unwrap_or(Err(CallError::Timeout))
    }

    /// Sends a call, and returns the connection that was used, if any.
    async fn send(
        &self,
        call: &StoreCall,
        time_limit: Duration,
        failed: FailedConnection,
    ) -> (Option<Arc<dyn StoreConnection>>, CallResult) {
        let mut used = None;
        let replies = async {
            let connection = used.insert(self.connection(failed).await?);
            connection.call(call).await
        };
        let replies = timeout(time_limit, replies).await.unwrap_or(Err(CallError::Timeout));
        (used, replies)
    }

    /// Waits for the connection.
    async fn connection(
        &self,
        mut failed: FailedConnection,
    ) -> Result<Arc<dyn StoreConnection>, CallError> {
        loop {
            let changed = self.state.changed();
            let state = self.state.lock().clone();
            match state {
                LinkState::Ready(connection) => return Ok(connection),
                LinkState::Closed => return Err(CallError::Closed),
                LinkState::Failed(error) => {
                    self.needed.notify_one();
                    match failed {
                        FailedConnection::Report => return Err(error),
                        FailedConnection::Retry => failed = FailedConnection::Report,
                    }
                }
                LinkState::Connecting => {}
            }
            changed.await;
        }
    }

    /// Decodes replies, and records their success or failure.
    fn settle<T>(
        &self,
        kind: CallKind<'_>,
        connection: Option<Arc<dyn StoreConnection>>,
        replies: CallResult,
        decode: impl FnOnce(Vec<Value>) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let mut server_error = None;
        let mut is_stale = false;
        let mut is_moved = false;
        let result = replies.and_then(|replies| {
            if let Some(error) = first_error(&replies) {
                server_error = Some(CallError::from_server(error));
                // A replica, after a fail-over; or a user whose password has changed.
                is_stale =
                    error.kind() == Some(ServerErrorKind::ReadOnly) || error.code() == "NOAUTH";
                is_moved = is_moving(error);
            }
            decode(replies)
        });
        let error = server_error.as_ref().or(result.as_ref().err());
        let Some(error) = error.filter(|_| !is_moved) else {
            let change = match kind {
                CallKind::Query(_) => self.breaker.succeed(),
                CallKind::Poll { is_fast: true } => self.breaker.succeed_polling(),
                // Lookups of a server that is this slow would fail.
                CallKind::Poll { is_fast: false } => BreakerChange::None,
            };
            self.report(change, None);
            return result;
        };
        count(&self.counters.failed_commands, 1);
        *self.last_error.lock() = Some(error.clone());
        let failure = match error {
            CallError::Server(text) if !text.starts_with("LOADING") => FailureKind::Refused,
            _ => FailureKind::Unreachable,
        };
        let change = self.breaker.fail(kind.permit(), failure);
        // After an invalid reply, later ones may belong to other calls. A server that does not reply may never do so.
        let is_broken = is_stale
            || match error {
                CallError::Connection(_) | CallError::Reply(_) => true,
                CallError::Timeout => change == BreakerChange::Opened || kind.permit().is_none(),
                CallError::OutOfUse | CallError::Closed | CallError::Server(_) => false,
            };
        if is_broken && let Some(connection) = connection {
            self.discard(&connection);
        }
        self.report(change, Some(error));
        result
    }

    /// Discards a connection that has failed, unless another one has replaced it.
    fn discard(&self, connection: &Arc<dyn StoreConnection>) {
        let is_discarded = self.state.update(|state| {
            let is_current =
                matches!(state, LinkState::Ready(current) if Arc::ptr_eq(current, connection));
            if is_current {
                *state = LinkState::Connecting;
            }
            is_current
        });
        if is_discarded {
            self.needed.notify_one();
        }
    }

    fn report(&self, change: BreakerChange, error: Option<&CallError>) {
        match (change, error) {
            (BreakerChange::Opened, Some(error)) => {
                count(&self.counters.breaker_openings, 1);
                let retried = "tried again after 1s, then less often, at least every 30s";
                tracing::warn!(%error, retried, "the shared verdict store is out of use: each replica scans by itself, and what has to be stored waits");
            }
            (BreakerChange::Closed(after), _) => {
                tracing::info!(?after, "the shared verdict store is in use again");
            }
            _ => {}
        }
    }
}

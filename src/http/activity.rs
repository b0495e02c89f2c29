//! State of one connection, shared by hyper's service, the socket and the connection table.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::framing::{Framing, ReceivedPart};
use crate::metrics::Metrics;

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ConnectionPhase {
    /// The first byte of its first request.
    New,
    /// The rest of a request header.
    Header,
    /// The next request; all responses have been written.
    Idle,
    /// The rest of a request body.
    Body,
    /// The response to a request, from the receipt of the complete request to the last byte written.
    Busy,
    /// Its end: the connection table has selected it.
    Closing,
}

/// Signals that a full connection table may have a connection to close.
#[derive(Default)]
pub(super) struct RoomSignal {
    waiting: AtomicBool,
    changed: Notify,
}

impl RoomSignal {
    /// Registers or deregisters the waiter. Registered before the phases are read, so that no change is missed.
    pub(super) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::SeqCst);
    }

    pub(super) async fn wait(&self) {
        self.changed.notified().await;
    }

    pub(super) fn notify(&self) {
        // Read in the phases of all connections, written only when the table is full.
        if self.waiting.load(Ordering::SeqCst) {
            self.changed.notify_one();
        }
    }
}

/// Requests and phase of one connection; at most one request is in flight (HTTP/1).
pub(super) struct Activity {
    started: AtomicU64,
    finished: AtomicU64,
    phase: Mutex<(ConnectionPhase, Instant)>,
    closing: Notify,
    room: Arc<RoomSignal>,
    framing: OnceLock<(u64, Framing)>,
    metrics: Arc<Metrics>,
}

impl Activity {
    pub(super) fn new(room: Arc<RoomSignal>, metrics: Arc<Metrics>) -> Self {
        Self {
            started: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            phase: Mutex::new((ConnectionPhase::New, Instant::now())),
            closing: Notify::new(),
            room,
            framing: OnceLock::new(),
            metrics,
        }
    }

    /// Returns the number of requests whose header was complete.
    pub(super) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.started() != self.finished.load(Ordering::Relaxed)
    }

    /// Returns the phase and its start.
    pub(super) fn phase(&self) -> (ConnectionPhase, Instant) {
        *self.phase.lock()
    }

    /// Records that bytes arrived while no request is in flight. `next`: what has been received of the next request.
    pub(super) fn bytes_received(&self, next: ReceivedPart) {
        let mut phase = self.phase.lock();
        match (phase.0, next) {
            // hyper has not parsed the header yet.
            (
                ConnectionPhase::New | ConnectionPhase::Idle | ConnectionPhase::Header,
                ReceivedPart::Header,
            ) => phase.0 = ConnectionPhase::Busy,
            (ConnectionPhase::New | ConnectionPhase::Idle, _) => {
                *phase = (ConnectionPhase::Header, Instant::now());
            }
            _ => {}
        }
    }

    /// Records that everything written so far has been passed to the kernel. `next`: what has been received of the next
    /// request, which a client may send before the response to the previous one.
    pub(super) fn flushed(&self, next: ReceivedPart) {
        if self.is_in_flight() {
            return;
        }
        {
            let mut phase = self.phase.lock();
            if phase.0 != ConnectionPhase::Busy {
                return;
            }
            let idle_phase = match next {
                ReceivedPart::Nothing => ConnectionPhase::Idle,
                ReceivedPart::Beginning => ConnectionPhase::Header,
                ReceivedPart::Header => return,
            };
            *phase = (idle_phase, Instant::now());
        }
        self.room.notify();
    }

    /// Records that the handler waits for the rest of the request body.
    pub(super) fn body_awaited(&self) {
        {
            let mut phase = self.phase.lock();
            if phase.0 != ConnectionPhase::Busy {
                return;
            }
            *phase = (ConnectionPhase::Body, Instant::now());
        }
        self.room.notify();
    }

    /// Records that the request body is complete, or that the handler does not read the rest.
    pub(super) fn body_ended(&self) {
        let mut phase = self.phase.lock();
        if phase.0 == ConnectionPhase::Body {
            phase.0 = ConnectionPhase::Busy;
        }
    }

    /// Selects the connection to be closed, unless its phase has changed.
    pub(super) fn close_if_still(&self, seen: (ConnectionPhase, Instant)) -> bool {
        let mut phase = self.phase.lock();
        if *phase != seen || matches!(seen.0, ConnectionPhase::Busy | ConnectionPhase::Closing) {
            return false;
        }
        phase.0 = ConnectionPhase::Closing;
        self.closing.notify_one();
        true
    }

    /// Completes when the connection has been selected to be closed.
    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Records the finding about the framing of a request.
    pub(super) fn set_framing(&self, finding: (u64, Framing)) {
        // There is only one: observation stops with it.
        let _ = self.framing.set(finding);
    }

    pub(super) fn add_sent_bytes(&self, count: usize) {
        self.metrics.http.add_sent_bytes(count);
    }
}

/// Guard of a request, from its complete header until its response has been passed to hyper or is cancelled.
pub(super) struct RequestInFlight {
    activity: Arc<Activity>,
    /// Number of the request in its connection, from 0.
    number: u64,
}

impl RequestInFlight {
    pub(super) fn start(activity: &Arc<Activity>) -> Self {
        let number = activity.started.fetch_add(1, Ordering::Relaxed);
        let mut phase = activity.phase.lock();
        if phase.0 != ConnectionPhase::Closing {
            phase.0 = ConnectionPhase::Busy;
        }
        drop(phase);
        Self { activity: Arc::clone(activity), number }
    }

    pub(super) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Returns the finding about the framing of this request, or of an earlier one, after which none is observed.
    pub(super) fn framing(&self) -> Option<Framing> {
        let (number, framing) = *self.activity.framing.get()?;
        (self.number >= number).then_some(framing)
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.activity.finished.fetch_add(1, Ordering::Relaxed);
    }
}

//! Table of open connections. When the table is full, a connection that waits for a request, or for the rest of one, gives its place to a new
//! one, so that idle connections of one client cannot lock out others.

use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::activity::{Activity, ConnectionPhase, RoomSignal};
use crate::{metrics::Metrics, tenancy::ClientNetwork};

/// Time for which a connection that has been accepted, one that has sent the first byte of a header, and one whose request
/// body has been awaited is closed only if no other can be: the rest is on its way. A header may arrive in several segments.
const GRACE: Duration = Duration::from_millis(100);

/// Memory of one connection in the table at most, bytes. A hash table has up to 16/7 places for each entry.
#[cfg(test)]
pub(crate) const ENTRY_BYTES: usize = 512;
#[cfg(test)]
const _: () = assert!(
    size_of::<Activity>()
        + (size_of::<(u64, Entry)>() + size_of::<(Option<ClientNetwork>, usize)>() + 2) * 16 / 7
        + size_of::<[usize; 2]>()
        <= ENTRY_BYTES
);

/// Open connections, at most a fixed number.
pub(super) struct ConnectionTable {
    max: usize,
    open: Mutex<Open>,
    room: Arc<RoomSignal>,
}

#[derive(Default)]
struct Open {
    last_id: u64,
    by_id: HashMap<u64, Entry>,
    /// Number of connections by client; `None` stands for Unix sockets. Contains no zero.
    counts: HashMap<Option<ClientNetwork>, usize>,
}

struct Entry {
    network: Option<ClientNetwork>,
    activity: Arc<Activity>,
}

/// Place of one connection; released on drop.
pub(super) struct Place {
    table: Arc<ConnectionTable>,
    id: u64,
    pub(super) activity: Arc<Activity>,
}

impl ConnectionTable {
    /// Creates a table for at least one connection.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), open: Mutex::default(), room: Arc::default() })
    }

    /// Waits for a place. While the table is full, closes a connection that waits for a request. Waits only while all
    /// connections process a complete request. Called by one task at a time. Cancellation safe.
    pub(super) async fn place(
        self: &Arc<Self>,
        network: Option<ClientNetwork>,
        metrics: &Arc<Metrics>,
    ) -> Place {
        loop {
            // Most tables are never full.
            if let Some(place) = self.try_place(network, metrics) {
                return place;
            }
            self.room.set_waiting(true);
            // A place may have become free before the waiter was registered.
            let place = self.try_place(network, metrics);
            if place.is_none() {
                self.room.wait().await;
            }
            self.room.set_waiting(false);
            if let Some(place) = place {
                return place;
            }
        }
    }

    fn try_place(
        self: &Arc<Self>,
        network: Option<ClientNetwork>,
        metrics: &Arc<Metrics>,
    ) -> Option<Place> {
        let mut open = self.open.lock();
        if open.by_id.len() >= self.max {
            open.close_one(Instant::now())?;
        }
        let activity = Arc::new(Activity::new(Arc::clone(&self.room), Arc::clone(metrics)));
        open.last_id += 1;
        let id = open.last_id;
        open.by_id.insert(id, Entry { network, activity: Arc::clone(&activity) });
        *open.counts.entry(network).or_default() += 1;
        Some(Place { table: Arc::clone(self), id, activity })
    }
}

impl Open {
    /// Closes a connection and frees its place. Returns `None` if all have a request in progress.
    fn close_one(&mut self, now: Instant) -> Option<()> {
        loop {
            let candidates = self.by_id.iter().filter_map(|(&id, entry)| {
                let seen = entry.activity.phase();
                let rank = rank(seen, now)?;
                let count = self.counts.get(&entry.network).copied().unwrap_or_default();
                Some(((rank, Reverse(count), seen.1, id), seen.0, &entry.activity))
            });
            let ((_, _, since, id), phase, activity) = candidates.min_by_key(|(key, ..)| *key)?;
            // Fails if a request has arrived meanwhile.
            if activity.close_if_still((phase, since)) {
                tracing::debug!(?phase, "connection closed to make room");
                self.remove(id);
                return Some(());
            }
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(entry) = self.by_id.remove(&id) else { return };
        if let Some(count) = self.counts.get_mut(&entry.network) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&entry.network);
            }
        }
    }
}

/// Returns the order in which connections are closed, lowest first; `None` for those that are not.
fn rank((phase, since): (ConnectionPhase, Instant), now: Instant) -> Option<u8> {
    match phase {
        ConnectionPhase::New | ConnectionPhase::Header | ConnectionPhase::Body
            if now.saturating_duration_since(since) < GRACE =>
        {
            Some(3)
        }
        ConnectionPhase::New | ConnectionPhase::Header => Some(0),
        ConnectionPhase::Idle => Some(1),
        ConnectionPhase::Body => Some(2),
        ConnectionPhase::Busy | ConnectionPhase::Closing => None,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.open.lock().remove(self.id);
        self.table.room.notify();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;
    use crate::http::{activity::RequestInFlight, framing::ReceivedPart};

    #[expect(clippy::unnecessary_wraps, reason = "the table's keys are optional")]
    fn client(last: u8) -> Option<ClientNetwork> {
        Some(ClientNetwork::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))))
    }

    /// Adds connections of these clients, one millisecond apart; the request of `Idle` ones has been answered.
    async fn fill(table: &Arc<ConnectionTable>, clients: &[(u8, ConnectionPhase)]) -> Vec<Place> {
        let mut places = Vec::new();
        for &(last, phase) in clients {
            let place = table.try_place(client(last), &Arc::default()).unwrap();
            match phase {
                ConnectionPhase::New | ConnectionPhase::Closing => {}
                ConnectionPhase::Header => place.activity.bytes_received(ReceivedPart::Beginning),
                ConnectionPhase::Busy => std::mem::forget(RequestInFlight::start(&place.activity)),
                ConnectionPhase::Body => {
                    std::mem::forget(RequestInFlight::start(&place.activity));
                    place.activity.body_awaited();
                }
                ConnectionPhase::Idle => {
                    drop(RequestInFlight::start(&place.activity));
                    place.activity.flushed(ReceivedPart::Nothing);
                }
            }
            assert_eq!(place.activity.phase().0, phase);
            places.push(place);
            advance(Duration::from_millis(1)).await;
        }
        places
    }

    /// Admits new connections until none is closed for them. Returns the indices of the closed ones, in order.
    async fn closed_in_order(clients: &[(u8, ConnectionPhase)], age: Duration) -> Vec<usize> {
        let table = ConnectionTable::new(clients.len());
        let places = fill(&table, clients).await;
        advance(age).await;
        let mut closed: Vec<usize> = Vec::new();
        while let Some(place) = table.try_place(client(0), &Arc::default()) {
            // The new ones have a request in progress.
            std::mem::forget((RequestInFlight::start(&place.activity), place));
            let is_new = |index: &usize| !closed.contains(index);
            let is_closed =
                |index: &usize| places[*index].activity.phase().0 == ConnectionPhase::Closing;
            let found: Vec<_> = (0..places.len()).filter(is_new).filter(is_closed).collect();
            assert_eq!(found.len(), 1);
            closed.extend(found);
            assert_eq!(table.open.lock().by_id.len(), clients.len());
        }
        closed
    }

    #[tokio::test(start_paused = true)]
    async fn closes_unfinished_headers_then_idle_connections_of_the_busiest_client() {
        use ConnectionPhase::{Busy, Header, Idle, New};
        let clients = [
            (1, Idle),
            (2, Idle),
            (2, Busy),
            (2, Idle),
            (1, Header),
            (3, New),
            (2, Header),
            (4, Busy),
            (2, Header),
        ];
        // The headers first, of client 2 (5 connections, then 4), 1 and 3. Then the idle ones of client 2 (3, then 2,
        // of which one is busy), and of client 1.
        assert_eq!(closed_in_order(&clients, GRACE).await, [6, 8, 4, 5, 1, 3, 0]);
        // Clients whose requests are on their way come last.
        assert_eq!(closed_in_order(&clients, Duration::ZERO).await, [1, 3, 0, 6, 8, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn closes_unfinished_bodies_of_the_busiest_client_last() {
        use ConnectionPhase::{Body, Busy, Header, Idle};
        let clients =
            [(1, Body), (2, Body), (2, Body), (1, Idle), (3, Header), (2, Busy), (2, Body)];
        assert_eq!(closed_in_order(&clients, GRACE).await, [4, 3, 1, 2, 6, 0]);
        let table = ConnectionTable::new(1);
        let places = fill(&table, &[(1, Body)]).await;
        places[0].activity.body_ended();
        assert!(table.try_place(client(2), &Arc::default()).is_none(), "the request is complete");
    }

    #[tokio::test(start_paused = true)]
    async fn header_in_two_segments_is_received_while_others_connect() {
        const MAX: u8 = 8;
        let table = ConnectionTable::new(MAX.into());
        let attack: Vec<_> = (2..=MAX).map(|last| (last, ConnectionPhase::New)).collect();
        let mut attacking = fill(&table, &attack).await;
        let place = table.try_place(client(1), &Arc::default()).unwrap();
        place.activity.bytes_received(ReceivedPart::Beginning);
        for last in 101..100 + MAX {
            advance(Duration::from_millis(1)).await;
            attacking.push(table.try_place(client(last), &Arc::default()).unwrap());
            assert_eq!(place.activity.phase().0, ConnectionPhase::Header, "{last}");
        }
        place.activity.bytes_received(ReceivedPart::Header);
        advance(GRACE).await;
        attacking.push(table.try_place(client(200), &Arc::default()).unwrap());
        assert_eq!(place.activity.phase().0, ConnectionPhase::Busy);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_until_a_request_ends_or_a_connection_closes() {
        let table = ConnectionTable::new(2);
        let mut places =
            fill(&table, &[(1, ConnectionPhase::New), (1, ConnectionPhase::Busy)]).await;
        let request = RequestInFlight::start(&places[0].activity);
        let metrics = Arc::default();
        {
            let mut waiting = Box::pin(table.place(client(2), &metrics));
            assert!(waiting.as_mut().now_or_never().is_none());
            drop(request);
            assert!(waiting.as_mut().now_or_never().is_none(), "the response is not yet written");
            places[0].activity.flushed(ReceivedPart::Nothing);
            assert!(waiting.as_mut().now_or_never().is_some());
        }
        assert_eq!(places[0].activity.phase().0, ConnectionPhase::Closing);

        let mut waiting = Box::pin(table.place(client(3), &metrics));
        // The place of the second waiter's predecessor was released when the test dropped it.
        assert!(waiting.as_mut().now_or_never().is_some());
        let mut busy = fill(&table, &[(4, ConnectionPhase::Busy)]).await;
        let mut waiting = Box::pin(table.place(client(3), &metrics));
        assert!(waiting.as_mut().now_or_never().is_none());
        busy.clear();
        assert!(waiting.as_mut().now_or_never().is_some());
        places.clear();
        assert!(table.open.lock().counts.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn request_that_arrives_meanwhile_keeps_its_connection() {
        let table = ConnectionTable::new(1);
        let places = fill(&table, &[(1, ConnectionPhase::Idle)]).await;
        let activity = &places[0].activity;
        let seen = activity.phase();
        let request = RequestInFlight::start(activity);
        assert!(!activity.close_if_still(seen));
        drop(request);
        assert!(!activity.close_if_still(activity.phase()), "the response is not yet written");
        activity.flushed(ReceivedPart::Nothing);
        assert!(activity.close_if_still(activity.phase()));
        assert!(activity.closing().now_or_never().is_some());
    }
}

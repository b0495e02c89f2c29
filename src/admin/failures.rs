//! Limit of requests with a wrong token from one peer.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{http::Peer, tenancy::ClientNetwork};

/// Maximum number of failures of one peer in one [`PERIOD`].
const MAX_FAILURES: u32 = 10;

const PERIOD: Duration = Duration::from_secs(60);

/// Maximum number of peers that are counted separately.
const MAX_PEERS: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum PeerId {
    Network(ClientNetwork),
    User(Option<u32>),
    /// All peers while too many are counted.
    Others,
}

#[derive(Clone, Copy, Debug)]
struct FailureCount {
    since: Instant,
    failures: u32,
}

/// Counts failures by peer.
#[derive(Default, Debug)]
pub(super) struct FailureLimit(Mutex<HashMap<PeerId, FailureCount>>);

/// What a failure leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FailureReply {
    /// Whether the peer has exceeded the limit.
    pub(super) is_limited: bool,
    /// Whether the failure is to be logged: the first and the last one before the limit applies, each period.
    pub(super) is_logged: bool,
}

impl FailureLimit {
    /// Counts a request with a wrong token.
    pub(super) fn record(&self, peer: Peer, now: Instant) -> FailureReply {
        let mut peers = self.0.lock();
        let mut id = match peer {
            Peer::Address(address) => PeerId::Network(ClientNetwork::new(address)),
            Peer::Local { uid } => PeerId::User(uid),
        };
        if peers.len() >= MAX_PEERS && !peers.contains_key(&id) {
            peers.retain(|_, count| now.duration_since(count.since) < PERIOD);
            if peers.len() >= MAX_PEERS {
                id = PeerId::Others;
            }
        }
        let count = peers.entry(id).or_insert(FailureCount { since: now, failures: 0 });
        if now.duration_since(count.since) >= PERIOD {
            *count = FailureCount { since: now, failures: 0 };
        }
        count.failures = count.failures.saturating_add(1);
        FailureReply {
            is_limited: count.failures > MAX_FAILURES,
            is_logged: count.failures == 1 || count.failures == MAX_FAILURES + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const USER: Peer = Peer::Local { uid: Some(1000) };

    #[test]
    fn failures_are_limited_by_peer_and_minute() {
        let (limit, start) = (FailureLimit::default(), Instant::now());
        for number in 1..=20 {
            let reply = limit.record(USER, start);
            assert_eq!(reply.is_limited, number > 10, "{number}");
            assert_eq!(reply.is_logged, number == 1 || number == 11, "{number}");
        }
        assert!(!limit.record(Peer::Local { uid: Some(1001) }, start).is_limited);
        assert!(!limit.record(Peer::Address(Ipv4Addr::LOCALHOST.into()), start).is_limited);
        assert!(limit.record(USER, start + PERIOD / 2).is_limited);
        assert!(!limit.record(USER, start + PERIOD).is_limited);
    }

    #[test]
    fn number_of_counted_peers_is_bounded() {
        let (limit, start) = (FailureLimit::default(), Instant::now());
        let address = |number: u32| Peer::Address(IpAddr::V4(Ipv4Addr::from_bits(number)));
        let limited = (0..2000).filter(|number| limit.record(address(*number), start).is_limited);
        assert!(limited.count() > 900);
        assert_eq!(limit.0.lock().len(), MAX_PEERS + 1);
        assert!(!limit.record(address(5000), start + PERIOD).is_limited);
    }
}

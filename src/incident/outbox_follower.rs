//! Follows an outbox that replicas share: one of them owns it, reads its entries and does their steps. The others watch its length.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcs_store::{OutboxRecord, RecordName, SharedStore};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracing::{error, info, warn};

use super::{
    incident_store::READ_AT_ONCE,
    outbox_reader::{EXPIRY_INTERVAL, OutboxReader},
    outbox_status::SharedStatus,
};

/// Time between two attempts to acquire or renew the ownership.
const HOLD_INTERVAL: Duration = Duration::from_secs(3);

/// Time after a renewal during which no other process can have acquired the ownership, which ends after 15 s.
const OWNED_TIME: Duration = Duration::from_secs(10);

/// Minimum time between two reads.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// Additional time for each entry, so that a full outbox is not read all the time.
const READ_TIME_PER_ENTRY: Duration = Duration::from_millis(1);

/// Age of a name without an entry after which the name is removed, seconds. Another process may be writing the entry.
const NAME_TIME: u64 = 60;

/// Age after which an entry that cannot be read is removed, seconds: entries are valid for 7 days.
const UNREADABLE_TIME: u64 = 8 * 86_400;

/// Follows a shared outbox.
pub(super) struct OutboxFollower {
    reader: OutboxReader,
    store: SharedStore,
    status: SharedStatus,
    /// When the ownership is acquired or renewed.
    next_hold: Instant,
    /// Whether an entry that cannot be read was logged.
    has_logged_unreadable: bool,
}

impl OutboxFollower {
    pub(super) fn new(reader: OutboxReader, store: SharedStore, status: SharedStatus) -> Self {
        Self { reader, store, status, next_hold: Instant::now(), has_logged_unreadable: false }
    }

    /// Acquires and renews the ownership, and reads new entries as the owner, until dropped. `written`: names of entries that
    /// this process has written.
    pub(super) async fn run(mut self, mut written: mpsc::UnboundedReceiver<RecordName>) {
        let mut next_expiry = Instant::now();
        loop {
            self.keep_ownership().await;
            let length = self.read().await;
            if self.reader.outbox.is_owned() && Instant::now() >= next_expiry {
                next_expiry = Instant::now() + EXPIRY_INTERVAL;
                self.reader.give_up_expired();
            }
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            let pause = READ_INTERVAL + READ_TIME_PER_ENTRY.saturating_mul(length);
            tokio::select! {
                () = sleep(pause.min(HOLD_INTERVAL)) => {}
                Some(_) = written.recv() => while written.try_recv().is_ok() {},
            }
        }
    }

    /// Acquires or renews the ownership if that is due. Returns whether this process has owned the outbox without a pause.
    async fn keep_ownership(&mut self) -> bool {
        let was_owned = self.reader.outbox.is_owned();
        if Instant::now() >= self.next_hold {
            self.next_hold = Instant::now() + HOLD_INTERVAL;
            self.hold().await;
        }
        was_owned && self.reader.outbox.is_owned()
    }

    /// Acquires or renews the ownership. Without the store, the ownership ends by itself.
    async fn hold(&mut self) {
        let (start, outbox) = (Instant::now(), &self.reader.outbox);
        let was_owned = outbox.is_owned();
        match self.store.hold_outbox().await {
            Some(true) => {
                outbox.set_owned(Some(start + OWNED_TIME));
                if !was_owned {
                    info!("this replica quarantines and notifies now");
                }
            }
            Some(false) => {
                outbox.set_owned(None);
                if was_owned {
                    info!("another replica quarantines and notifies now");
                }
            }
            None => {}
        }
    }

    /// Reads the names, and as the owner the entries that are new. Returns the number of names.
    async fn read(&mut self) -> usize {
        let Some(names) = self.store.outbox_names().await else { return 0 };
        self.status.set(names.len(), names.first().map(|(_, added)| *added));
        let is_new = |(name, _): &&(RecordName, u64)| !self.reader.outbox.has(*name);
        let new: Vec<_> = names.iter().filter(is_new).copied().collect();
        for part in new.chunks(READ_AT_ONCE) {
            if !self.keep_ownership().await {
                break;
            }
            let part_names: Vec<_> = part.iter().map(|(name, _)| *name).collect();
            let Some(records) = self.store.outbox_records(&part_names).await else { break };
            for ((name, added), record) in part.iter().zip(records) {
                // Many entries take longer than the ownership lasts. After a pause, they may be outdated.
                if !self.keep_ownership().await {
                    return names.len();
                }
                self.insert(*name, *added, record).await;
            }
        }
        names.len()
    }

    /// Takes an entry over to the outbox in memory. `added`: when the entry was added, seconds since 1970.
    async fn insert(&mut self, name: RecordName, added: u64, record: OutboxRecord) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let age = now.saturating_sub(added);
        match record {
            OutboxRecord::Valid(entry) => {
                if let Some((number, incident)) = self.reader.outbox.insert(&entry) {
                    self.reader.announce(number, &incident).await;
                }
            }
            OutboxRecord::Missing if age > NAME_TIME => self.store.remove_from_outbox(name),
            OutboxRecord::Missing => {}
            OutboxRecord::Expired => {
                warn!("an incident of another replica was not done within 7 days");
                self.store.remove_from_outbox(name);
            }
            OutboxRecord::Unreadable => {
                if !std::mem::replace(&mut self.has_logged_unreadable, true) {
                    error!(
                        "incidents in the shared store cannot be read: they have another secret, or were altered"
                    );
                }
                if age > UNREADABLE_TIME {
                    self.store.remove_from_outbox(name);
                }
            }
        }
    }
}

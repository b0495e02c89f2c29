//! Thread that looks up records.

use std::sync::{Arc, mpsc::Receiver};

use rusqlite::{Connection, OptionalExtension as _, Row, Statement, params};
use tokio::sync::oneshot;

use crate::{
    changes::StoreChange,
    counters::count,
    database::{is_damage, open_reader},
    limits::MAX_VALUE,
    queue::{DamageReport, Durability, QueuedChange},
    record::{RecordKey, RecordKind},
    secret::{BadRecord, OVERHEAD},
    state::StoreState,
};

/// Request to look up records.
pub(crate) struct RecordLookup {
    /// Keys in descending precedence.
    pub(crate) keys: Vec<RecordKey>,
    pub(crate) reply: oneshot::Sender<Option<(RecordKind, Vec<u8>)>>,
}

/// Row of a record.
struct StoredRow {
    expiry: Option<i64>,
    /// Empty if the value cannot be a sealed one.
    sealed: Vec<u8>,
}

/// Result of looking up one key.
enum LookupResult {
    Valid(Vec<u8>),
    Missing,
    Invalid,
}

/// Replies to lookups until their channel is closed.
pub(crate) fn run(state: &Arc<StoreState>, lookups: &Receiver<RecordLookup>) {
    let mut next = lookups.recv().ok();
    while let Some(lookup) = next {
        // The writer replaces the file only while it holds this lock.
        let epoch_guard = state.epoch.lock();
        let epoch = *epoch_guard;
        let connection = open_reader(&state.path);
        drop(epoch_guard);
        let result = connection.and_then(|connection| {
            let reader = StoreReader { state, statement: prepare(&connection)?, epoch };
            Ok(reader.serve(lookup, lookups))
        });
        next = result.unwrap_or_else(|error| {
            report_failure(state, epoch, &error);
            lookups.recv().ok()
        });
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<Statement<'_>> {
    // Longer values are not read at all.
    let sql = format!(
        "SELECT expiry, CASE WHEN length(sealed) <= {} THEN sealed END FROM record \
         WHERE kind = ?1 AND name = ?2 AND version = ?3",
        OVERHEAD + MAX_VALUE
    );
    connection.prepare(&sql)
}

fn report_failure(state: &StoreState, epoch: u64, error: &rusqlite::Error) {
    count(&state.counters.failed_reads, 1);
    if is_damage(error) {
        state.queue.report_damage(DamageReport { epoch, message: error.to_string() });
    }
}

/// Reader of one file.
struct StoreReader<'a> {
    state: &'a StoreState,
    statement: Statement<'a>,
    epoch: u64,
}

impl StoreReader<'_> {
    /// Replies to lookups until the file is replaced. Returns the next lookup for the new file.
    fn serve(
        mut self,
        first: RecordLookup,
        lookups: &Receiver<RecordLookup>,
    ) -> Option<RecordLookup> {
        let mut lookup = first;
        loop {
            if *self.state.epoch.lock() != self.epoch {
                return Some(lookup);
            }
            // The caller may have stopped waiting, for example because the disk was slow.
            if !lookup.reply.is_closed() {
                let found = self.find_first(&lookup.keys).unwrap_or_else(|error| {
                    report_failure(self.state, self.epoch, &error);
                    None
                });
                let counters = &self.state.counters;
                count(if found.is_some() { &counters.hits } else { &counters.misses }, 1);
                let _ = lookup.reply.send(found);
            }
            lookup = lookups.recv().ok()?;
        }
    }

    /// Finds the first valid record. An altered record ends the search, because the original record had
    /// precedence over the following keys.
    fn find_first(
        &mut self,
        keys: &[RecordKey],
    ) -> rusqlite::Result<Option<(RecordKind, Vec<u8>)>> {
        for key in keys {
            match self.find(key)? {
                LookupResult::Valid(value) => return Ok(Some((key.kind, value))),
                LookupResult::Missing => {}
                LookupResult::Invalid => return Ok(None),
            }
        }
        Ok(None)
    }

    fn find(&mut self, key: &RecordKey) -> rusqlite::Result<LookupResult> {
        let parameters = params![key.kind as u8, key.name.0, key.version_bytes()];
        let row = self.statement.query_row(parameters, StoredRow::read).optional()?;
        let Some(row) = row else { return Ok(LookupResult::Missing) };
        let now = (self.state.now)();
        let counters = &self.state.counters;
        let (counter, result) = match self.state.secret.open(key, &row.sealed, now) {
            Ok(value) => return Ok(LookupResult::Valid(value)),
            // The same expiry in the row: the record waits for its removal. Another one: the row was altered.
            Err(BadRecord::Expired(expiry)) if i64::try_from(expiry).ok() == row.expiry => {
                (&counters.expired, LookupResult::Missing)
            }
            Err(BadRecord::Expired(_)) => (&counters.bad_records, LookupResult::Missing),
            Err(_) => (&counters.bad_records, LookupResult::Invalid),
        };
        count(counter, 1);
        // If the queue is full, the next lookup removes the row.
        self.state.queue.push(QueuedChange {
            change: StoreChange::RemoveInvalid { key: *key, sealed: row.sealed },
            durability: Durability::Droppable,
            acknowledgement: None,
        });
        Ok(result)
    }
}

impl StoredRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        // A hostile file may contain values of other types.
        let expiry = row.get_ref(0)?.as_i64().ok();
        let sealed = row.get_ref(1)?.as_blob().unwrap_or_default().to_vec();
        Ok(Self { expiry, sealed })
    }
}

//! Thread that looks up records.

use std::sync::{Arc, mpsc::Receiver};

use rusqlite::{Connection, OptionalExtension as _, Row, Statement, params};
use tokio::sync::oneshot;

use crate::{
    changes::StoreChange,
    counters::count,
    database::{is_damage, open_reader},
    limits::MAX_VALUE,
    listing::{self, ListPage, ListPosition, ListedRecord},
    outbox::{self, OutboxLookup},
    queue::{DamageReport, Durability, QueuedChange},
    record::{RecordKey, RecordKind, RecordName},
    secret::{BadRecord, OVERHEAD},
    state::StoreState,
};

/// Request to look up records.
pub(crate) struct RecordLookup {
    /// Keys in descending precedence.
    pub(crate) keys: Vec<RecordKey>,
    pub(crate) reply: oneshot::Sender<Option<(RecordKind, Vec<u8>)>>,
}

/// Request to look up all records with a name.
pub(crate) struct AllLookup {
    pub(crate) kind: RecordKind,
    pub(crate) name: RecordName,
    pub(crate) reply: oneshot::Sender<Option<Vec<ListedRecord>>>,
}

/// Request for a part of all records.
pub(crate) struct PageLookup {
    pub(crate) kinds: Vec<RecordKind>,
    pub(crate) after: Option<ListPosition>,
    pub(crate) reply: oneshot::Sender<Option<ListPage>>,
}

/// Request to the reader.
pub(crate) enum ReadRequest {
    First(RecordLookup),
    All(AllLookup),
    Page(PageLookup),
    Outbox(OutboxLookup),
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
pub(crate) fn run(state: &Arc<StoreState>, lookups: &Receiver<ReadRequest>) {
    let mut next = lookups.recv().ok();
    while let Some(lookup) = next {
        // The writer replaces the file only while it holds this lock.
        let epoch_guard = state.epoch.lock();
        let epoch = *epoch_guard;
        let connection = open_reader(&state.path);
        drop(epoch_guard);
        let result = connection.and_then(|connection| {
            let statement = prepare(&connection)?;
            let reader = StoreReader { state, connection: &connection, statement, epoch };
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
    connection: &'a Connection,
    statement: Statement<'a>,
    epoch: u64,
}

impl StoreReader<'_> {
    /// Replies to lookups until the file is replaced. Returns the next lookup for the new file.
    fn serve(mut self, first: ReadRequest, lookups: &Receiver<ReadRequest>) -> Option<ReadRequest> {
        let mut request = first;
        loop {
            if *self.state.epoch.lock() != self.epoch {
                return Some(request);
            }
            // The caller may have stopped waiting, for example because the disk was slow.
            match request {
                ReadRequest::First(lookup) if !lookup.reply.is_closed() => {
                    let found = self.find_first(&lookup.keys);
                    let found = found.unwrap_or_else(|error| self.report(&error));
                    let counters = &self.state.counters;
                    count(if found.is_some() { &counters.hits } else { &counters.misses }, 1);
                    let _ = lookup.reply.send(found);
                }
                ReadRequest::All(AllLookup { kind, name, reply }) if !reply.is_closed() => {
                    let found = listing::find_all(self.state, self.connection, kind, name);
                    let _ = reply.send(found.map_or_else(|error| self.report(&error), Some));
                }
                ReadRequest::Page(PageLookup { kinds, after, reply }) if !reply.is_closed() => {
                    let page = listing::read_page(self.state, self.connection, &kinds, after);
                    let _ = reply.send(page.map_or_else(|error| self.report(&error), Some));
                }
                ReadRequest::Outbox(OutboxLookup { part, reply }) if !reply.is_closed() => {
                    let page = outbox::read_page(self.state, self.connection, part);
                    let _ = reply.send(page.map_or_else(|error| self.report(&error), Some));
                }
                ReadRequest::First(_)
                | ReadRequest::All(_)
                | ReadRequest::Page(_)
                | ReadRequest::Outbox(_) => {}
            }
            request = lookups.recv().ok()?;
        }
    }

    /// Reports that the file cannot be read.
    fn report<T>(&self, error: &rusqlite::Error) -> Option<T> {
        report_failure(self.state, self.epoch, error);
        None
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
        let (counter, result) = match self.state.secrets.open(key, &row.sealed, now) {
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

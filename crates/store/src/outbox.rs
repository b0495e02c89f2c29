//! The outbox: entries about incidents in the order in which they were created, each until its last step is done.

use rusqlite::{Connection, Row, params, types::Value};
use tokio::sync::oneshot;

use crate::{
    changes::StoreChange,
    counters::count,
    limits::OUTBOX_PAGE_BYTES,
    listing::{ListPosition, max_sealed},
    queue::{Durability, QueuedChange},
    record::{NAME, RecordKey, RecordKind, RecordName},
    secret::BadRecord,
    state::StoreState,
};

/// Valid entry of the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxEntry {
    /// Name of the incident.
    pub name: RecordName,
    /// Time from which the entry is invalid, seconds since the Unix epoch.
    pub expiry: u64,
    /// Opened value.
    pub value: Vec<u8>,
}

/// Part of the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxPage {
    /// Valid entries, the oldest first. Invalid ones are removed, unless one was requested by its name.
    pub entries: Vec<OutboxEntry>,
    /// Start of the next page; `None` after the last one.
    pub next: Option<ListPosition>,
    /// Number of entries that were invalid because of their age.
    pub expired: usize,
    /// Number of entries that no secret of the store opens.
    pub unreadable: usize,
}

/// Part of the outbox that is read.
#[derive(Clone, Copy)]
pub(crate) enum OutboxPart {
    /// The entries after a position.
    After(Option<ListPosition>),
    /// One entry.
    Named(RecordName),
}

/// Request for a part of the outbox.
pub(crate) struct OutboxLookup {
    pub(crate) part: OutboxPart,
    pub(crate) reply: oneshot::Sender<Option<OutboxPage>>,
}

/// Returns the key of an entry, which its seal is bound to.
pub(crate) fn outbox_key(name: RecordName) -> RecordKey {
    RecordKey { kind: RecordKind::Outbox, name, version: None }
}

/// Reads a part of the outbox, and queues the removal of invalid entries in a page.
pub(crate) fn read_page(
    state: &StoreState,
    connection: &Connection,
    part: OutboxPart,
) -> rusqlite::Result<OutboxPage> {
    let columns = "SELECT id, name, CASE WHEN length(sealed) <= ?2 THEN sealed END FROM outbox";
    let (condition, value) = match part {
        OutboxPart::After(after) => {
            let after = after.map_or(i64::MIN, |ListPosition(id)| id);
            ("id > ?1 ORDER BY id", Value::Integer(after))
        }
        OutboxPart::Named(name) => ("name = ?1", Value::Blob(name.0.to_vec())),
    };
    let mut statement = connection.prepare(&format!("{columns} WHERE {condition}"))?;
    let mut rows = statement.query(params![value, max_sealed()])?;
    let mut page = OutboxPage { entries: Vec::new(), next: None, expired: 0, unreadable: 0 };
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let position = ListPosition(row.get_ref(0)?.as_i64().unwrap_or(0));
        match open_row(state, row, part)? {
            Ok(entry) => {
                bytes += entry.value.len();
                page.entries.push(entry);
            }
            Err(is_expired) => {
                page.expired += usize::from(is_expired);
                page.unreadable += usize::from(!is_expired);
            }
        }
        if bytes >= OUTBOX_PAGE_BYTES {
            page.next = Some(position);
            break;
        }
    }
    Ok(page)
}

/// Returns the entry in a row, or whether its age is the reason why it is invalid.
fn open_row(
    state: &StoreState,
    row: &Row<'_>,
    part: OutboxPart,
) -> rusqlite::Result<Result<OutboxEntry, bool>> {
    // A hostile file may contain values of other types.
    let name = row.get_ref(1)?.as_blob().ok().and_then(|name| <[u8; NAME]>::try_from(name).ok());
    let Some(name) = name.map(RecordName) else {
        count(&state.counters.bad_records, 1);
        return Ok(Err(false));
    };
    let sealed = row.get_ref(2)?.as_blob().unwrap_or_default();
    let (key, now) = (outbox_key(name), (state.now)());
    let error = match state.secrets.open_by_any(|secret| secret.open_with_expiry(&key, sealed, now))
    {
        Ok((expiry, value)) => return Ok(Ok(OutboxEntry { name, expiry, value })),
        Err(error) => error,
    };
    let is_expired = matches!(error, BadRecord::Expired(_));
    if !is_expired {
        count(&state.counters.bad_records, 1);
    }
    // An entry that is requested by its name may have another secret for a moment: its owner stores it again.
    if matches!(part, OutboxPart::After(_)) {
        state.queue.push(QueuedChange {
            change: StoreChange::RemoveOutbox { name },
            durability: Durability::Droppable,
            acknowledgement: None,
        });
    }
    Ok(Err(is_expired))
}

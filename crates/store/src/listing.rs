//! Reading of many records: all with a name, and a listing of the file in parts.

use rusqlite::{Connection, Row, params};

use crate::{
    limits::MAX_VALUE,
    record::{NAME, RecordKey, RecordKind, RecordName},
    secret::OVERHEAD,
    state::StoreState,
};

/// Maximum number of records with one name that are read.
const MAX_SAME_NAME: u32 = 64;

/// Maximum number of rows that one page reads. Lookups wait for about a millisecond.
const PAGE_ROWS: u32 = 256;

/// Number of bytes after which a page ends.
const PAGE_BYTES: usize = 256 << 10;

/// Place in the listing of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListPosition(pub(crate) i64);

/// Valid record with its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedRecord {
    /// Key of the record.
    pub key: RecordKey,
    /// Time from which the record is invalid, seconds since the Unix epoch, if it is known.
    pub expiry: Option<u64>,
    /// Opened value.
    pub value: Vec<u8>,
}

/// Part of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListPage {
    /// Valid records. Invalid ones are left out.
    pub records: Vec<ListedRecord>,
    /// Start of the next page; `None` after the last one.
    pub next: Option<ListPosition>,
}

/// Returns all valid records with a name.
pub(crate) fn find_all(
    state: &StoreState,
    connection: &Connection,
    kind: RecordKind,
    name: RecordName,
) -> rusqlite::Result<Vec<ListedRecord>> {
    let mut statement = connection.prepare(
        "SELECT rowid, kind, name, version, CASE WHEN length(sealed) <= ?3 THEN sealed END \
         FROM record WHERE kind = ?1 AND name = ?2 LIMIT ?4",
    )?;
    let parameters = params![kind as u8, name.0, max_sealed(), MAX_SAME_NAME];
    let mut rows = statement.query(parameters)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.extend(open_row(state, row)?);
    }
    Ok(records)
}

/// Reads the page after a place.
pub(crate) fn read_page(
    state: &StoreState,
    connection: &Connection,
    kinds: &[RecordKind],
    after: Option<ListPosition>,
) -> rusqlite::Result<ListPage> {
    // Values of other kinds and longer ones are not read.
    let mut statement = connection.prepare(
        "SELECT rowid, kind, name, version, \
         CASE WHEN ((1 << kind) & ?2) <> 0 AND length(sealed) <= ?3 THEN sealed END \
         FROM record WHERE rowid < ?1 ORDER BY rowid DESC LIMIT ?4",
    )?;
    let kinds = kinds.iter().fold(0_i64, |mask, kind| mask | (1 << *kind as u8));
    let after = after.map_or(i64::MAX, |ListPosition(row)| row);
    let mut rows = statement.query(params![after, kinds, max_sealed(), PAGE_ROWS])?;
    let mut page = ListPage { records: Vec::new(), next: None };
    let (mut read, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        read += 1;
        let position = ListPosition(row.get_ref(0)?.as_i64().unwrap_or(0));
        if let Some(record) = open_row(state, row)? {
            bytes += record.value.len();
            page.records.push(record);
        }
        if read == PAGE_ROWS || bytes >= PAGE_BYTES {
            page.next = Some(position);
            break;
        }
    }
    Ok(page)
}

/// Returns the record in a row; `None` if it is invalid. Invalid records are removed by lookups, and when they expire.
fn open_row(state: &StoreState, row: &Row<'_>) -> rusqlite::Result<Option<ListedRecord>> {
    // A hostile file may contain values of other types.
    let kind = row.get_ref(1)?.as_i64().ok().and_then(RecordKind::from_number);
    let name = row.get_ref(2)?.as_blob().ok().and_then(|name| <[u8; NAME]>::try_from(name).ok());
    let version = match row.get_ref(3)?.as_blob() {
        Ok([]) => Some(None),
        Ok(version) => version.try_into().ok().map(Some),
        Err(_) => None,
    };
    let sealed = row.get_ref(4)?.as_blob().ok();
    let (Some(kind), Some(name), Some(version), Some(sealed)) = (kind, name, version, sealed)
    else {
        return Ok(None);
    };
    let key = RecordKey { kind, name: RecordName(name), version };
    let now = (state.now)();
    let opened = state.secrets.open_by_any(|secret| secret.open_with_expiry(&key, sealed, now));
    Ok(opened.ok().map(|(expiry, value)| ListedRecord { key, expiry: Some(expiry), value }))
}

/// Returns the maximum length of a sealed value.
pub(crate) fn max_sealed() -> i64 {
    i64::try_from(OVERHEAD + MAX_VALUE).unwrap_or(i64::MAX)
}

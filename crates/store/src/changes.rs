//! Changes of the database, and their execution in transactions.

use rusqlite::{Transaction, TransactionBehavior, ffi, params};

use crate::{
    database::OpenDatabase,
    limits::{MAX_EVICTED, MAX_OUTBOX, MAX_VALUE},
    record::{RecordKey, RecordKind, RecordName},
    secret::OVERHEAD,
};

/// Change of the database.
#[derive(Debug)]
pub(crate) enum StoreChange {
    /// Writes a record, in place of an earlier one with its key.
    Put { key: RecordKey, expiry: u64, sealed: Vec<u8> },
    /// Removes the records with a name, of all versions.
    Remove { kind: RecordKind, name: RecordName },
    /// Removes one invalid row, unless its record was written again since it was read. `sealed`: the value of the row;
    /// values that cannot be sealed ones are removed in any case.
    RemoveInvalid { key: RecordKey, sealed: Vec<u8> },
    /// Creates an incident: writes the mark that it was created, and its entry in the outbox. Nothing is written if the mark
    /// exists, or the outbox is full.
    AddIncident { mark: SealedRow, entry: SealedRow },
    /// Replaces an entry of the outbox, if it exists.
    UpdateOutbox { name: RecordName, sealed: Vec<u8> },
    /// Removes an entry of the outbox.
    RemoveOutbox { name: RecordName },
    /// Removes all records but those of [`RecordKind::Seen`], and the outbox.
    Clear,
}

/// Row whose kind and version follow from the change.
#[derive(Debug)]
pub(crate) struct SealedRow {
    pub(crate) name: RecordName,
    pub(crate) expiry: u64,
    pub(crate) sealed: Vec<u8>,
}

impl StoreChange {
    /// Returns the memory that the change takes beside the enum itself, in bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Put { sealed, .. }
            | Self::RemoveInvalid { sealed, .. }
            | Self::UpdateOutbox { sealed, .. } => sealed.len(),
            Self::AddIncident { mark, entry } => mark.sealed.len() + entry.sealed.len(),
            Self::Remove { .. } | Self::RemoveOutbox { .. } | Self::Clear => 0,
        }
    }
}

/// Limits of the number of records, for one transaction.
#[derive(Clone, Copy)]
pub(crate) struct EvictionLimits {
    pub(crate) max_entries: u64,
    /// Records that expire until this time are removed.
    pub(crate) now: u64,
}

/// Result of a transaction.
pub(crate) struct CommitReport {
    /// Number of records in the database.
    pub(crate) entries: u64,
    pub(crate) evicted: u64,
    /// Incidents that were not created because the outbox is full.
    pub(crate) outbox_overflows: u64,
    /// Whether more records are to be evicted than one transaction does.
    pub(crate) has_more: bool,
}

/// Executes changes in one transaction, and evicts records that expired or exceed the limit. `is_durable`: returns only
/// after the changes are on disk.
pub(crate) fn commit<'a>(
    database: &mut OpenDatabase,
    changes: impl Iterator<Item = &'a StoreChange>,
    is_durable: bool,
    limits: EvictionLimits,
) -> rusqlite::Result<CommitReport> {
    let OpenDatabase { connection, entries } = database;
    // NORMAL writes the log without waiting for the disk: a power failure may lose the last transactions, and leaves
    // the database consistent.
    let synchronous = if is_durable { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut batch = Batch { transaction: &transaction, entries: *entries, outbox_overflows: 0 };
    batch.apply(changes)?;
    let evicted = batch.evict(limits)?;
    let (after, outbox_overflows) = (batch.entries, batch.outbox_overflows);
    if after != *entries {
        let sql = "UPDATE state SET entries = ?1";
        transaction.execute(sql, [i64::try_from(after).unwrap_or(i64::MAX)])?;
    }
    transaction.commit()?;
    *entries = after;
    let has_more = evicted >= MAX_EVICTED || after > limits.max_entries;
    Ok(CommitReport { entries: after, evicted, outbox_overflows, has_more })
}

struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    entries: u64,
    outbox_overflows: u64,
}

impl Batch<'_> {
    fn apply<'a>(
        &mut self,
        changes: impl Iterator<Item = &'a StoreChange>,
    ) -> rusqlite::Result<()> {
        let prepare = |sql| self.transaction.prepare(sql);
        let mut insert = prepare("INSERT OR IGNORE INTO record VALUES(?1, ?2, ?3, ?4, ?5)")?;
        let mut update = prepare(
            "UPDATE record SET expiry = ?4, sealed = ?5 \
             WHERE kind = ?1 AND name = ?2 AND version = ?3",
        )?;
        for change in changes {
            match change {
                StoreChange::Put { key, expiry, sealed } => {
                    let expiry = to_column(*expiry);
                    let (kind, version) = (key.kind as u8, key.version_bytes());
                    let row = params![kind, key.name.0, version, expiry, sealed];
                    let inserted = insert.execute(row)?;
                    // A row that exists and is not found means that the index is damaged.
                    if inserted == 0 && update.execute(row)? == 0 {
                        return Err(rusqlite::Error::SqliteFailure(
                            ffi::Error::new(ffi::SQLITE_CORRUPT),
                            None,
                        ));
                    }
                    self.entries += inserted as u64;
                }
                StoreChange::Remove { kind, name } => {
                    let sql = "DELETE FROM record WHERE kind = ?1 AND name = ?2";
                    let removed = self.transaction.execute(sql, params![*kind as u8, name.0])?;
                    self.count_removed(removed);
                }
                StoreChange::RemoveInvalid { key, sealed } => {
                    let sql = "DELETE FROM record WHERE kind = ?1 AND name = ?2 AND version = ?3 \
                               AND (sealed = ?4 OR typeof(sealed) <> 'blob' OR length(sealed) > ?5)";
                    let version = key.version_bytes();
                    let max = to_column((OVERHEAD + MAX_VALUE) as u64);
                    let row = params![key.kind as u8, key.name.0, version, sealed, max];
                    let removed = self.transaction.execute(sql, row)?;
                    self.count_removed(removed);
                }
                StoreChange::AddIncident { mark, entry } => self.add_incident(mark, entry)?,
                StoreChange::UpdateOutbox { name, sealed } => {
                    let sql = "UPDATE outbox SET sealed = ?2 WHERE name = ?1";
                    self.transaction.execute(sql, params![name.0, sealed])?;
                }
                StoreChange::RemoveOutbox { name } => {
                    self.transaction.execute("DELETE FROM outbox WHERE name = ?1", [name.0])?;
                }
                StoreChange::Clear => self.clear()?,
            }
        }
        Ok(())
    }

    fn clear(&mut self) -> rusqlite::Result<()> {
        let kind = RecordKind::Seen as u8;
        let sql = "SELECT count(*) FROM record WHERE kind = ?1";
        let kept: i64 = self.transaction.query_one(sql, [kind], |row| row.get(0))?;
        if kept == 0 {
            // Without a condition, SQLite removes the pages of the table at once.
            self.transaction.execute("DELETE FROM record", [])?;
        } else {
            self.transaction.execute("DELETE FROM record WHERE kind <> ?1", [kind])?;
        }
        self.transaction.execute("DELETE FROM outbox", [])?;
        self.entries = u64::try_from(kept).unwrap_or_default();
        Ok(())
    }

    fn add_incident(&mut self, mark: &SealedRow, entry: &SealedRow) -> rusqlite::Result<()> {
        let kind = RecordKind::Incident as u8;
        let sql = "SELECT EXISTS (SELECT 1 FROM record WHERE kind = ?1 AND name = ?2)";
        if self.transaction.query_one(sql, params![kind, mark.name.0], |row| row.get(0))? {
            return Ok(());
        }
        let count = "SELECT count(*) FROM outbox";
        let count: i64 = self.transaction.query_one(count, [], |row| row.get(0))?;
        if count >= to_column(MAX_OUTBOX) {
            self.outbox_overflows += 1;
            return Ok(());
        }
        let sql = "INSERT INTO record VALUES(?1, ?2, x'', ?3, ?4)";
        let row = params![kind, mark.name.0, to_column(mark.expiry), mark.sealed];
        self.entries += self.transaction.execute(sql, row)? as u64;
        let sql = "INSERT OR IGNORE INTO outbox(name, expiry, sealed) VALUES(?1, ?2, ?3)";
        let row = params![entry.name.0, to_column(entry.expiry), entry.sealed];
        self.transaction.execute(sql, row)?;
        Ok(())
    }

    /// Removes expired records. While there are too many, removes any of [`RecordKind::Seen`], which have the longest lifetime
    /// and matter least, then those that expire first. Returns the number of removed records.
    fn evict(&mut self, limits: EvictionLimits) -> rusqlite::Result<u64> {
        let sql = "DELETE FROM record WHERE rowid IN \
                   (SELECT rowid FROM record WHERE expiry <= ?1 ORDER BY expiry LIMIT ?2)";
        let max = to_column(MAX_EVICTED);
        let expired = self.transaction.execute(sql, [to_column(limits.now), max])?;
        self.count_removed(expired);
        let excess = self.entries.saturating_sub(limits.max_entries);
        let excess = excess.min(MAX_EVICTED.saturating_sub(expired as u64));
        if excess == 0 {
            return Ok(expired as u64);
        }
        let sql = "DELETE FROM record WHERE rowid IN \
                   (SELECT rowid FROM record WHERE kind = ?1 LIMIT ?2)";
        let seen = params![RecordKind::Seen as u8, to_column(excess)];
        let seen = self.transaction.execute(sql, seen)?;
        let sql = "DELETE FROM record WHERE rowid IN \
                   (SELECT rowid FROM record ORDER BY expiry LIMIT ?1)";
        let others = to_column(excess.saturating_sub(seen as u64));
        let removed = seen + self.transaction.execute(sql, [others])?;
        self.count_removed(removed);
        if (removed as u64) < excess {
            // Nothing is left, so the number in the file was wrong.
            self.entries = 0;
        }
        Ok((expired + removed) as u64)
    }

    fn count_removed(&mut self, number: usize) {
        self.entries = self.entries.saturating_sub(number as u64);
    }
}

/// Returns a time or number as the database stores it.
fn to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

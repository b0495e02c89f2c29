//! Thread that writes to the database.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rusqlite::config::DbConfig;

use crate::{
    changes::{CommitReport, EvictionLimits, commit},
    counters::count,
    database::{OpenDatabase, OpenFailure, is_damage, open_writer},
    error::{DamageCause, NotDurable, StoreError},
    limits::{EVICTION_INTERVAL, FLUSH_TIMEOUT, REPLACEMENT_INTERVAL},
    queue::{Durability, QueuedChange},
    state::StoreState,
};

/// Reason why a transaction failed.
#[derive(Debug, thiserror::Error)]
enum WriteFailure {
    #[error("{0}")]
    Damaged(DamageCause),
    #[error("{0}")]
    Database(rusqlite::Error),
    #[error(transparent)]
    File(StoreError),
}

impl From<OpenFailure> for WriteFailure {
    fn from(failure: OpenFailure) -> Self {
        match failure {
            OpenFailure::Damaged(cause) => Self::Damaged(cause),
            OpenFailure::Failed(error) => Self::Database(error),
        }
    }
}

impl From<rusqlite::Error> for WriteFailure {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) {
            Self::Damaged(DamageCause::Damaged(error.to_string()))
        } else {
            Self::Database(error)
        }
    }
}

/// Thread that writes to the database. The only one that replaces the file.
pub(crate) struct StoreWriter {
    state: Arc<StoreState>,
    /// `None` after a replacement failed, until the file can be opened.
    database: Option<OpenDatabase>,
    epoch: u64,
    /// Time of the last replacement.
    replaced: Option<u64>,
    /// Whether the last transaction failed. Only transitions between success and failure are logged.
    is_failing: bool,
}

impl StoreWriter {
    pub(crate) fn new(state: Arc<StoreState>, database: OpenDatabase) -> Self {
        state.counters.entries.store(database.entries, Ordering::Relaxed);
        let epoch = *state.epoch.lock();
        Self { state, database: Some(database), epoch, replaced: None, is_failing: false }
    }

    /// Writes changes until the queue is closed and empty, then closes the database.
    pub(crate) fn run(mut self) {
        let state = Arc::clone(&self.state);
        // Evicts before the first change.
        let mut max_wait = Duration::ZERO;
        let mut flush_deadline = None;
        loop {
            let batch = state.queue.next_batch(max_wait);
            if let Some(damage) = batch.damage {
                // Another file may be in use by now.
                if damage.epoch == self.epoch {
                    self.replace(DamageCause::Damaged(damage.message));
                }
                continue;
            }
            if batch.is_closed {
                let deadline =
                    *flush_deadline.get_or_insert_with(|| Instant::now() + FLUSH_TIMEOUT);
                if batch.changes.is_empty() || Instant::now() >= deadline {
                    self.drop_changes(batch.changes);
                    break;
                }
            }
            let has_more = self.write(batch.changes);
            max_wait = if has_more { Duration::ZERO } else { EVICTION_INTERVAL };
        }
        self.close();
    }

    /// Writes one batch. Returns whether more records are to be evicted.
    fn write(&mut self, batch: Vec<QueuedChange>) -> bool {
        match self.commit(&batch) {
            Ok(report) => {
                let counters = &self.state.counters;
                counters.entries.store(report.entries, Ordering::Relaxed);
                count(&counters.evicted, report.evicted);
                count(&counters.outbox_overflows, report.outbox_overflows);
                for change in batch {
                    change.acknowledge(Ok(()));
                }
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the verdict store can be written again");
                }
                report.has_more
            }
            Err(failure) => {
                self.handle_failure(failure, batch);
                false
            }
        }
    }

    fn handle_failure(&mut self, failure: WriteFailure, batch: Vec<QueuedChange>) {
        count(&self.state.counters.failed_writes, batch.len() as u64);
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(error = %failure, "the verdict store cannot be written");
        }
        let is_replaced = match failure {
            WriteFailure::Damaged(cause) => self.replace(cause),
            WriteFailure::Database(_) | WriteFailure::File(_) => false,
        };
        self.keep_retried(batch, is_replaced);
    }

    fn commit(&mut self, batch: &[QueuedChange]) -> Result<CommitReport, WriteFailure> {
        let mut database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        let changes = batch.iter().map(|change| &change.change);
        let is_durable = batch.iter().any(|change| change.durability != Durability::Droppable);
        let max_entries = self.state.max_entries;
        let limits = EvictionLimits { max_entries, now: (self.state.now)() };
        let report = commit(&mut database, changes, is_durable, limits);
        self.database = Some(database);
        Ok(report?)
    }

    /// Opens the file again, after a replacement failed.
    fn reopen(&mut self) -> Result<OpenDatabase, WriteFailure> {
        // The reader must not open a file that is being created.
        let mut epoch = self.state.epoch.lock();
        self.state.path.create().map_err(WriteFailure::File)?;
        let database = open_writer(&self.state.path)?;
        *epoch += 1;
        self.epoch = *epoch;
        Ok(database)
    }

    /// Returns the changes that are retried to the queue, and drops the others.
    fn keep_retried(&mut self, batch: Vec<QueuedChange>, is_replaced: bool) {
        let is_retried = |change: &QueuedChange| change.durability == Durability::Retried;
        let (retried, failed): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_retried);
        for change in failed {
            change.acknowledge(Err(NotDurable));
        }
        if retried.is_empty() {
            return;
        }
        // While closing, failed changes are not retried, except once after the file was replaced.
        if self.state.queue.is_closed() && !is_replaced {
            self.drop_changes(retried);
            return;
        }
        self.state.queue.return_failed(retried);
        if !is_replaced {
            self.state.queue.pause(self.state.retry_pause);
        }
    }

    fn drop_changes(&self, changes: Vec<QueuedChange>) {
        count(&self.state.counters.dropped_writes, changes.len() as u64);
        for change in changes {
            change.acknowledge(Err(NotDurable));
        }
    }

    /// Sets the file aside and creates a new one. Returns `false` if this was done a short time ago, or fails.
    fn replace(&mut self, cause: DamageCause) -> bool {
        let now = (self.state.now)();
        if self.replaced.is_some_and(|last| now.abs_diff(last) < REPLACEMENT_INTERVAL) {
            return false;
        }
        self.replaced = Some(now);
        let state = Arc::clone(&self.state);
        let mut epoch = state.epoch.lock();
        if let Some(OpenDatabase { connection, .. }) = self.database.take() {
            // Closing would write the log to the damaged file, and remove the log.
            let option = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            let _ = connection.set_db_config(option, true);
        }
        let replaced = state.path.set_aside(now, cause).and_then(|set_aside| {
            tracing::error!(
                cause = %set_aside.cause,
                path = %set_aside.path.display(),
                "the verdict store was damaged, set aside and replaced by a new one"
            );
            state.path.create()
        });
        let replaced =
            replaced.map_err(WriteFailure::File).and_then(|_| Ok(open_writer(&state.path)?));
        // The reader closes the old file.
        *epoch += 1;
        self.epoch = *epoch;
        match replaced {
            Ok(database) => {
                state.counters.entries.store(database.entries, Ordering::Relaxed);
                self.database = Some(database);
                count(&state.counters.replacements, 1);
                true
            }
            Err(failure) => {
                tracing::error!(error = %failure, "the damaged verdict store cannot be replaced");
                false
            }
        }
    }

    /// Writes the log to the database, and closes the file. `SQLite` then removes the log, which marks a clean end.
    fn close(mut self) {
        let Some(database) = self.database.take() else { return };
        if let Err((_, error)) = database.connection.close() {
            tracing::warn!(error = %error, "the verdict store cannot be closed");
        }
    }
}

/// Fails the changes that remain in the queue, also after a panic.
impl Drop for StoreWriter {
    fn drop(&mut self) {
        let queue = &self.state.queue;
        queue.close();
        loop {
            let batch = queue.next_batch(Duration::ZERO);
            if batch.changes.is_empty() && batch.damage.is_none() {
                break;
            }
            self.drop_changes(batch.changes);
        }
    }
}

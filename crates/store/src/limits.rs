//! Limits of the store.

use std::time::Duration;

/// Maximum length of a record's value in bytes.
pub const MAX_VALUE: usize = 64 << 10;

/// Default maximum number of records in the file, about 240 bytes each with values of 80 bytes.
pub const DEFAULT_MAX_ENTRIES: u64 = 1_000_000;

/// Maximum number of queued records that may be dropped.
pub(crate) const MAX_QUEUED: usize = 4096;

/// Maximum number of queued changes that callers rely on: not-clean records and removals.
pub(crate) const MAX_QUEUED_KEPT: usize = 10_000;

/// Maximum number of queued changes of the outbox of a shared store.
pub(crate) const MAX_QUEUED_OUTBOX: usize = 10_000;

/// Maximum size of the queued changes in bytes, separately for each of the kinds above.
pub(crate) const MAX_QUEUED_BYTES: usize = 16 << 20;

/// Maximum number of queued lookups.
pub(crate) const MAX_LOOKUPS: usize = 1024;

/// Maximum number of entries in the outbox. With more, the oldest are kept.
pub const MAX_OUTBOX: u64 = 10_000;

/// Number of bytes after which a page of the outbox ends.
pub(crate) const OUTBOX_PAGE_BYTES: usize = 1 << 20;

/// Maximum number of changes in a transaction.
pub(crate) const MAX_BATCH: usize = 256;

/// Time that an ordinary record waits for others to be written in the same transaction.
pub(crate) const BATCH_TIME: Duration = Duration::from_millis(50);

/// Maximum number of records removed in a transaction because they expired, or because there are too many.
pub(crate) const MAX_EVICTED: u64 = 1000;

/// Time between removals of expired records while nothing is written.
pub(crate) const EVICTION_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum time between two replacements of a damaged file in use, in seconds.
pub(crate) const REPLACEMENT_INTERVAL: u64 = 60;

/// Maximum number of damaged files that are kept.
pub(crate) const MAX_DAMAGED_FILES: usize = 3;

/// Time that closing writes queued changes.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Time after which closing leaves the threads to themselves, for example because the disk does not respond.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a connection waits for a lock of another connection.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

//! Limits of lists. The prepared form takes 18 bytes for a block entry and 34 for an allow entry.

/// Maximum number of block entries, and of allow entries. `ClamAV`'s databases have fewer than 10 million signatures.
pub const MAX_ENTRIES: usize = 50_000_000;

/// Maximum number of lists.
pub const MAX_LISTS: usize = 65_536;

/// Maximum number of entries of a list whose names are kept.
pub const MAX_NAMED_ENTRIES: u64 = 100_000;

/// Maximum length of the name of an entry in bytes. Longer names are cut.
pub const MAX_NAME: usize = 128;

/// Maximum length of the name of a list in bytes. Longer names are cut.
pub const MAX_LIST_NAME: usize = 255;

/// Maximum size of all names of block entries, and of allow entries, in bytes, with 12 bytes for each. The names of lists
/// beyond it are not kept.
pub const MAX_NAMES: usize = 32 << 20;

/// Maximum length of a line in bytes.
pub(crate) const MAX_LINE: usize = 4096;

/// Maximum unpacked size of a database, in bytes.
pub(crate) const MAX_UNPACKED: u64 = 4 << 30;

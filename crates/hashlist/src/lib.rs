//! Lists of files to block or to allow, by their digests.
//!
//! [`HashListBuilder`] reads list files and entries from code, and [`prepare`](HashListBuilder::prepare)s them once.
//! [`HashLists`] uses the prepared bytes in place, for example in memory that is shared by processes, and finds the entry
//! for the [`Digests`] of a file.
//!
//! - **Text lists**: a digest in each line, in hexadecimal digits of any case, then optionally a name after a space. The
//!   digest is a SHA-256, a SHA-1, or an MD5 with the size of the file (`MD5:SIZE`, or `MD5:*` for any size). A SHA-1 may
//!   have a size as well. `#` starts a comment; line ends are LF or CR LF. The output of `sha256sum` has this form.
//! - **`ClamAV`**: `.hdb` and `.hsb`, and these in databases (`.cvd`, `.cld`). Other signatures are counted
//!   ([`ListSummary`]) and not used. Lists of false positives (`.fp`, `.sfp`) and of withdrawn signatures (`.ign2`) are not
//!   applied. Signatures of databases are not verified; freshclam does so before it installs a file.
//! - **Allow lists** are text lists with SHA-256 only, because different files can be made with equal MD5 or SHA-1.
//!   They are compared in full.
//! - **The empty file** is never blocked: public lists contain it by mistake, and archives often contain empty files.
//! - **Names** of entries are kept for lists with at most [`MAX_NAMED_ENTRIES`] entries, up to a total of
//!   [`MAX_NAMES`] bytes. A match in other lists has only the name of the list.
//! - **Size**: 18 bytes for a block entry (16 for its key, 2 for its list), 34 for an allow entry, and at most half a byte
//!   for the index.
//!
//! An invalid line is an error with the name of the file and the number of the line.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod builder;
mod clamav;
mod database;
mod entry;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hash_lists;
mod key;
mod layout;
mod limits;
mod line_reader;
mod list_file;
mod list_reader;
#[cfg(any(test, fuzzing))]
mod model;
mod table;
#[cfg(test)]
mod tests;
mod text_list;
mod unsorted_table;

pub use builder::{HashListBuilder, ListSummary};
pub use entry::{DigestKind, Digests, FileDigest, HashEntry, ListAction};
pub use error::{FileProblem, HashListError, LineProblem};
pub use hash_lists::{HashLists, HashMatch, PreparedListsError};
pub use limits::{MAX_ENTRIES, MAX_LIST_NAME, MAX_LISTS, MAX_NAME, MAX_NAMED_ENTRIES, MAX_NAMES};

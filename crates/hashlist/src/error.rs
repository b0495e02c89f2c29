//! Reasons why a list cannot be used. The messages are for operators.

use std::{io, path::PathBuf};

use crate::limits::{MAX_ENTRIES, MAX_LINE, MAX_LISTS, MAX_UNPACKED};

/// Reason why a list cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "explained by the messages")]
pub enum HashListError {
    /// A file cannot be opened or read, or its compressed data is damaged.
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// A file cannot be used as a whole.
    #[error("{}: {problem}", path.display())]
    InvalidFile { path: PathBuf, problem: FileProblem },
    /// A line of a file is invalid. `member`: name of the file inside a database.
    #[error("{}{}{}, line {line}: {problem}", path.display(), if member.is_some() { ": " } else { "" }, member.as_deref().unwrap_or_default())]
    InvalidLine { path: PathBuf, member: Option<String>, line: u64, problem: LineProblem },
    /// An entry from code is invalid. `number`: 1 for the first entry.
    #[error("{list}, entry {number}: {problem}")]
    InvalidEntry { list: String, number: u64, problem: LineProblem },
    #[error("more than {MAX_LISTS} hash lists; combine some of them into one file")]
    TooManyLists,
    #[error("the prepared hash lists exceed the address space; use fewer lists")]
    TooLarge,
}

/// Reason why a file cannot be used as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "explained by the messages")]
pub enum FileProblem {
    #[error("not a regular file; list each file by its own path")]
    NotRegular,
    #[error("compressed; unpack the file and list the result")]
    Compressed,
    #[error("UTF-16; save the file as UTF-8")]
    Utf16,
    #[error(
        "signatures other than hashes of whole files; of ClamAV's files only .hdb, .hsb, .cvd and .cld are read"
    )]
    OtherSignatures,
    #[error(
        "a ClamAV database as an allow list; an allow list is a text file with one SHA-256 (64 hexadecimal digits) in each line"
    )]
    AllowDatabase,
    #[error(
        "none of its records can be used; expected MD5:SIZE:NAME, SHA1:SIZE:NAME or SHA256:SIZE:NAME"
    )]
    NoUsableRecord,
    #[error("the database is damaged: {0}; download it again")]
    DamagedDatabase(&'static str),
    #[error("the unpacked database is larger than {} MiB", MAX_UNPACKED >> 20)]
    TooLarge,
}

/// Reason why a line or an entry is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "explained by the messages")]
pub enum LineProblem {
    #[error(
        "found {found} characters, expected a SHA-256 (64 hexadecimal digits), a SHA-1 (40 digits), or an MD5 (32 digits) and \
         the size of the file as MD5:SIZE; a name follows after a space, and a comment starts with #"
    )]
    NoDigest { found: usize },
    #[error("an MD5 without the size of the file; write MD5:SIZE, or MD5:* for files of any size")]
    Md5WithoutSize,
    #[error("a SHA-256 with a size; remove the colon and the size")]
    Sha256WithSize,
    #[error(
        "expected the size of the file after the colon, in bytes and at least 1, or *; a name follows after a space"
    )]
    InvalidSize,
    #[error(
        "allow lists accept only SHA-256, because different files can be made with equal MD5 or SHA-1; write the SHA-256 of the \
         file (64 hexadecimal digits)"
    )]
    NotAllowable,
    #[error("expected MD5:SIZE:NAME, SHA1:SIZE:NAME or SHA256:SIZE:NAME, with SIZE in bytes or *")]
    InvalidRecord,
    #[error("longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("more than {MAX_ENTRIES} entries in all lists")]
    TooManyEntries,
}

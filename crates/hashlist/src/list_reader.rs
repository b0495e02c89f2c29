//! Reads a list of any format into an [`EntrySink`].

use std::io::{self, BufRead};

use crate::{
    clamav::{ClamavRecord, parse_record},
    entry::HashEntry,
    error::{FileProblem, LineProblem},
    line_reader::LineReader,
    text_list::parse_line,
};

/// Receiver of the entries of a list.
pub(crate) trait EntrySink {
    /// Adds an entry. Returns whether the entry is used.
    fn add(&mut self, entry: &HashEntry<'_>) -> Result<bool, LineProblem>;
}

/// Reason why reading stopped.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    File(FileProblem),
    /// `member`: name of the file inside a database.
    Line {
        member: Option<String>,
        line: u64,
        problem: LineProblem,
    },
    TooManyLists,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<FileProblem> for ReadError {
    fn from(problem: FileProblem) -> Self {
        Self::File(problem)
    }
}

/// Numbers of entries of a list that are used, and of all entries.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct EntryCounts {
    pub(crate) used: u64,
    pub(crate) total: u64,
}

impl EntryCounts {
    pub(crate) fn count(&mut self, is_used: bool) {
        self.used += u64::from(is_used);
        self.total += 1;
    }
}

/// First bytes of UTF-8 text from Windows.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a text list.
pub(crate) fn read_text(
    mut reader: impl BufRead,
    sink: &mut dyn EntrySink,
) -> Result<EntryCounts, ReadError> {
    let start = reader.fill_buf()?;
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        return Err(FileProblem::Utf16.into());
    }
    let archives: [&[u8]; 5] =
        [b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"7z\xbc\xaf\x27\x1c"];
    if archives.iter().any(|magic| start.starts_with(magic)) {
        return Err(FileProblem::Compressed.into());
    }
    let mut is_first = true;
    read_lines(reader, None, |line| {
        let text = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| is_first).unwrap_or(line);
        is_first = false;
        parse_line(text)?.map(|entry| sink.add(&entry)).transpose()
    })
}

/// Reads records of `ClamAV`. `member`: name of the file inside a database.
pub(crate) fn read_records(
    reader: impl BufRead,
    member: Option<&str>,
    sink: &mut dyn EntrySink,
) -> Result<EntryCounts, ReadError> {
    read_lines(reader, member, |line| match parse_record(line)? {
        None => Ok(None),
        Some(ClamavRecord::Entry(entry)) => sink.add(&entry).map(Some),
        Some(ClamavRecord::Unsupported) => Ok(Some(false)),
    })
}

/// Reads lines. `add` returns whether the entry of a line is used, or `None` for a line without an entry.
fn read_lines(
    reader: impl BufRead,
    member: Option<&str>,
    mut add: impl FnMut(&[u8]) -> Result<Option<bool>, LineProblem>,
) -> Result<EntryCounts, ReadError> {
    let mut lines = LineReader::new(reader);
    let mut counts = EntryCounts::default();
    while let Some(line) = lines.next_line()? {
        match line.and_then(&mut add) {
            Ok(is_used) => is_used.into_iter().for_each(|is_used| counts.count(is_used)),
            Err(problem) => {
                let member = member.map(str::to_owned);
                return Err(ReadError::Line { member, line: lines.number(), problem });
            }
        }
    }
    Ok(counts)
}

//! Limits which parts of a file the rules see, and how much they read.

use std::{
    io::{self, SeekFrom},
    ops::Range,
    panic::resume_unwind,
};

use pure_magic::readers::DataRead;

use crate::text::trim_partial_char;

/// Maximum number of bytes read from the beginning of a file. The ZIP entries that distinguish Office documents are not
/// the first entries, and the signature of a disk image is at 32 KiB.
pub(crate) const HEAD_LEN: usize = 1 << 20;
/// Maximum number of bytes read from the end of a file. Some rules count from the end, to find an archive after other
/// content.
pub(crate) const TAIL_LEN: usize = 4 << 10;
/// Bytes that the rules may read in one detection, plus [`READ_COST`] for each read. A rule may evaluate all rules
/// again at an offset in the file: without a limit, 3 KiB of Mach-O headers that refer to one another took seconds. Of
/// about 4000 ordinary files, the most expensive ones took a third of this.
const READ_BUDGET: u64 = 64 << 20;
/// Cost of a read of any length: about that of evaluating a rule that reads four bytes.
const READ_COST: u64 = 256;

/// Payload of the unwinding when [`READ_BUDGET`] is used up.
pub(crate) struct BudgetExceeded;

/// The beginning and the end of a file, readable until [`READ_BUDGET`] is used up.
#[derive(Clone, Copy)]
pub(crate) struct LimitedReader<'a> {
    /// Beginning of the file.
    pub(crate) head: &'a [u8],
    tail: &'a [u8],
    /// Size of the whole file, bytes.
    pub(crate) size: u64,
    position: u64,
    budget: u64,
    /// Answer to the first reads of an evaluation, and their number.
    probe: (&'static [u8], u8),
}

/// Kind of a file, for `pure-magic`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ContentKind {
    Text,
    Binary,
}

impl<'a> LimitedReader<'a> {
    pub(crate) fn new(head: &'a [u8], tail: &'a [u8], size: u64) -> Self {
        Self { head, tail, size, position: 0, budget: READ_BUDGET, probe: (&[], 0) }
    }

    /// Makes `pure-magic` evaluate the rules as for a file of this kind. Applies to one evaluation.
    ///
    /// `pure-magic` reads the whole file first, to find its kind, and with a text twice more, to detect JSON and CSV.
    /// These reads get one byte of the kind: libmagic defines the three otherwise (see the module `text`).
    pub(crate) fn as_kind(self, kind: ContentKind) -> Self {
        let probe: (&[u8], u8) = match kind {
            ContentKind::Text => (b"a", 3),
            ContentKind::Binary => (b"\0", 1),
        };
        Self { probe, ..self }
    }

    /// Removes a prefix from the file, if the file begins with it.
    pub(crate) fn without_prefix(self, prefix: &[u8]) -> Self {
        let head = self.head.strip_prefix(prefix).unwrap_or(self.head);
        let size = self.size.saturating_sub((self.head.len() - head.len()) as u64);
        Self { head, size, ..self }
    }

    /// Limits the beginning to `len` bytes, and keeps the end.
    ///
    /// Drops a partial character at the end of the beginning: with one, a text would no longer be text.
    pub(crate) fn with_max_head(self, len: usize) -> Self {
        let rest = self.head.get(len..).unwrap_or_default();
        let rest_tail = rest.get(rest.len().saturating_sub(TAIL_LEN)..).unwrap_or_default();
        Self {
            head: trim_partial_char(self.head.get(..len).unwrap_or(self.head)),
            tail: if self.tail.is_empty() { rest_tail } else { self.tail },
            ..self
        }
    }

    /// Returns the bytes from `offset` to the end of the part that contains it. Between beginning and end there are
    /// none, as if the file ended there.
    fn rest_at(&self, offset: u64) -> &'a [u8] {
        let tail_offset = self.size.saturating_sub(self.tail.len() as u64);
        let (part, offset) = if offset < self.head.len() as u64 {
            (self.head, offset)
        } else {
            (self.tail, offset.checked_sub(tail_offset).unwrap_or(u64::MAX))
        };
        usize::try_from(offset).ok().and_then(|offset| part.get(offset..)).unwrap_or_default()
    }

    /// Reads up to `len` bytes at `offset`. Unwinds if the budget is used up.
    fn read_at(&mut self, offset: u64, len: u64) -> &'a [u8] {
        let rest = self.rest_at(offset);
        let bytes = usize::try_from(len).ok().and_then(|len| rest.get(..len)).unwrap_or(rest);
        self.position = offset.saturating_add(bytes.len() as u64);
        let cost = bytes.len() as u64 + READ_COST;
        self.budget = self.budget.checked_sub(cost).unwrap_or_else(|| {
            // Not an error: `pure-magic` would treat an error as the end of the file and continue. `Detector` catches
            // this; unlike a panic, it is not printed.
            resume_unwind(Box::new(BudgetExceeded))
        });
        bytes
    }

    /// Reads up to `limit` bytes in chunks of `step` bytes, until the first chunk for which `is_end` returns true.
    /// Includes `extra` bytes of that chunk.
    fn read_until(
        &mut self,
        limit: u64,
        extra: usize,
        is_end: impl Fn(&[u8]) -> bool,
        step: usize,
    ) -> &'a [u8] {
        let rest = self.rest_at(self.position);
        let rest = usize::try_from(limit).ok().and_then(|len| rest.get(..len)).unwrap_or(rest);
        let end = rest.chunks(step).position(is_end);
        let len = end.map_or(rest.len(), |chunks| chunks * step + extra);
        self.read_at(self.position, (len - len % step) as u64)
    }
}

impl DataRead for LimitedReader<'_> {
    fn stream_position(&self) -> u64 {
        self.position
    }

    fn read_range(&mut self, range: Range<u64>) -> io::Result<&[u8]> {
        if let (bytes, reads @ 1..) = self.probe {
            self.probe.1 = reads - 1;
            return Ok(bytes);
        }
        Ok(self.read_at(range.start, range.end.saturating_sub(range.start)))
    }

    fn read_until_any_delim_or_limit(&mut self, delims: &[u8], limit: u64) -> io::Result<&[u8]> {
        Ok(self.read_until(limit, 1, |chunk| chunk.iter().any(|b| delims.contains(b)), 1))
    }

    fn read_until_or_limit(&mut self, byte: u8, limit: u64) -> io::Result<&[u8]> {
        Ok(self.read_until(limit, 1, |chunk| chunk.contains(&byte), 1))
    }

    fn read_while_or_limit<F>(&mut self, f: F, limit: u64) -> io::Result<&[u8]>
    where
        F: Fn(u8) -> bool,
    {
        Ok(self.read_until(limit, 0, |chunk| !chunk.iter().all(|b| f(*b)), 1))
    }

    fn read_until_utf16_or_limit(&mut self, char: &[u8; 2], limit: u64) -> io::Result<&[u8]> {
        Ok(self.read_until(limit, 2, |chunk| chunk == char, 2))
    }

    fn data_size(&self) -> u64 {
        self.size
    }

    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.position = self.offset_from_start(pos);
        Ok(self.position)
    }
}

//! The part of a file that rules may see, and how much they may read of it. Knows no rule.

use std::{
    any::Any,
    io::{self, SeekFrom},
    ops::Range,
    panic::resume_unwind,
};

use pure_magic::readers::DataRead;

use super::{READ, TAIL, WORK, whole_characters};

/// What the rules see of a file: its beginning and its end, for as long as [`WORK`] lasts.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) head: &'a [u8],
    tail: &'a [u8],
    pub(super) size: u64,
    at: u64,
    work: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(head: &'a [u8], tail: &'a [u8], size: u64) -> Self {
        Self { head, tail, size, at: 0, work: WORK }
    }

    /// As if the file began behind `prefix`, where it has that.
    pub(super) fn without(self, prefix: &[u8]) -> Self {
        let head = self.head.strip_prefix(prefix).unwrap_or(self.head);
        let size = self.size.saturating_sub((self.head.len() - head.len()) as u64);
        Self { head, size, ..self }
    }

    /// With no more than `len` bytes of the beginning; those at the end stay. A text that is cut in
    /// the middle of a character would not be text any more.
    pub(super) fn cut(self, len: usize) -> Self {
        let rest = self.head.get(len..).unwrap_or_default();
        let end = rest.get(rest.len().saturating_sub(TAIL)..).unwrap_or_default();
        Self {
            head: whole_characters(self.head.get(..len).unwrap_or(self.head)),
            tail: if self.tail.is_empty() { end } else { self.tail },
            ..self
        }
    }

    /// What there is from `at` on. Nothing is between the beginning and the end, as if the file
    /// ended there.
    fn rest(&self, at: u64) -> &'a [u8] {
        let tail_at = self.size.saturating_sub(self.tail.len() as u64);
        let (part, at) = if at < self.head.len() as u64 {
            (self.head, at)
        } else {
            (self.tail, at.checked_sub(tail_at).unwrap_or(u64::MAX))
        };
        usize::try_from(at).ok().and_then(|at| part.get(at..)).unwrap_or_default()
    }

    fn take(&mut self, at: u64, len: u64) -> &'a [u8] {
        let rest = self.rest(at);
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len)).unwrap_or(rest);
        self.at = at.saturating_add(taken.len() as u64);
        let cost = taken.len() as u64 + READ;
        self.work = self.work.checked_sub(cost).unwrap_or_else(|| {
            // Not an error: the engine takes one for the data's end and goes on. This unwinds to
            // `Detector::run` without a message.
            resume_unwind(Box::new("out of work") as Box<dyn Any + Send>)
        });
        taken
    }

    /// Up to `limit` bytes from here, to the first for which `end` holds, with `extra` bytes of it.
    fn until(
        &mut self,
        limit: u64,
        extra: usize,
        end: impl Fn(&[u8]) -> bool,
        step: usize,
    ) -> &'a [u8] {
        let rest = self.rest(self.at);
        let rest = usize::try_from(limit).ok().and_then(|len| rest.get(..len)).unwrap_or(rest);
        let len = rest.chunks(step).position(end).map_or(rest.len(), |n| n * step + extra);
        self.take(self.at, (len - len % step) as u64)
    }
}

impl DataRead for Window<'_> {
    fn stream_position(&self) -> u64 {
        self.at
    }

    fn read_range(&mut self, range: Range<u64>) -> io::Result<&[u8]> {
        Ok(self.take(range.start, range.end.saturating_sub(range.start)))
    }

    fn read_until_any_delim_or_limit(&mut self, delims: &[u8], limit: u64) -> io::Result<&[u8]> {
        Ok(self.until(limit, 1, |b| b.iter().any(|b| delims.contains(b)), 1))
    }

    fn read_until_or_limit(&mut self, byte: u8, limit: u64) -> io::Result<&[u8]> {
        Ok(self.until(limit, 1, |b| b.contains(&byte), 1))
    }

    fn read_while_or_limit<F>(&mut self, f: F, limit: u64) -> io::Result<&[u8]>
    where
        F: Fn(u8) -> bool,
    {
        Ok(self.until(limit, 0, |b| !b.iter().all(|b| f(*b)), 1))
    }

    fn read_until_utf16_or_limit(&mut self, char: &[u8; 2], limit: u64) -> io::Result<&[u8]> {
        Ok(self.until(limit, 2, |b| b == char, 2))
    }

    fn data_size(&self) -> u64 {
        self.size
    }

    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.at = self.offset_from_start(pos);
        Ok(self.at)
    }
}

//! The bytes of a stream or of a file, in pieces of the container.

use std::{
    io::{self, Read},
    iter,
};

use memchr::memmem;

use super::{
    name::EntryName,
    unpacker::{Completeness, Unpacked, Unpacker},
};

/// Number of bytes that are searched at once.
const WINDOW: usize = 64 << 10;

/// A piece of a stream.
#[derive(Clone, Copy)]
struct Piece {
    /// Position in the stream.
    start: usize,
    /// Position in the file.
    offset: usize,
    length: usize,
}

/// The bytes of a stream. Adjacent sectors are one piece, so that most streams need no copy.
#[derive(Clone, Default)]
pub(super) struct StreamContent<'a> {
    file: &'a [u8],
    pieces: Vec<Piece>,
    length: usize,
}

impl<'a> StreamContent<'a> {
    /// Creates an empty stream in a file.
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { file, pieces: Vec::new(), length: 0 }
    }

    /// Creates a stream of all bytes of a file.
    pub(super) fn whole(file: &'a [u8]) -> Self {
        let mut content = Self::new(file);
        content.push(0, file.len());
        content
    }

    /// Appends the bytes of the file from `offset`, at most `length`. Returns how many the file has.
    pub(super) fn push(&mut self, offset: usize, length: usize) -> usize {
        let length = length.min(self.file.len().saturating_sub(offset));
        if length == 0 {
            return 0;
        }
        match self.pieces.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += length,
            _ => self.pieces.push(Piece { start: self.length, offset, length }),
        }
        self.length += length;
        length
    }

    /// Appends a range of another stream of the same file. Returns its length.
    pub(super) fn append(&mut self, other: &Self, start: usize, length: usize) -> usize {
        let before = self.length;
        other.for_each(start, length, |offset, length| _ = self.push(offset, length));
        self.length - before
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Returns a part of the stream, shorter if the stream ends before.
    pub(super) fn range(&self, start: usize, length: usize) -> Self {
        let mut part = Self::new(self.file);
        part.append(self, start, length);
        part
    }

    /// Returns the stream without its first bytes.
    pub(super) fn from(&self, start: usize) -> Self {
        self.range(start, self.length)
    }

    /// Copies at most `length` bytes.
    pub(super) fn copy(&self, start: usize, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.for_each(start, length, |offset, length| {
            bytes.extend(self.file.get(offset..offset + length).unwrap_or_default());
        });
        bytes
    }

    /// Copies `LENGTH` bytes; `None` if the stream ends before.
    pub(super) fn array<const LENGTH: usize>(&self, start: usize) -> Option<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        let read = self.reader(start).read(&mut bytes).ok()?;
        (read == LENGTH).then_some(bytes)
    }

    /// Calls `piece` with the position in the file and the length of each piece of a range.
    fn for_each(&self, start: usize, length: usize, mut piece: impl FnMut(usize, usize)) {
        let end = start.saturating_add(length).min(self.length);
        let first = self.pieces.partition_point(|piece| piece.start + piece.length <= start);
        for part in self.pieces.get(first..).unwrap_or_default() {
            if part.start >= end {
                break;
            }
            let skipped = start.saturating_sub(part.start);
            let part_end = (part.start + part.length).min(end);
            piece(part.offset + skipped, part_end - part.start - skipped);
        }
    }

    /// Returns the positions of bytes.
    pub(super) fn positions(&self, needle: &[u8]) -> impl Iterator<Item = usize> {
        (0..self.length).step_by(WINDOW).flat_map(move |start| {
            let window = self.copy(start, WINDOW + needle.len() - 1);
            let found: Vec<_> = positions(&window, needle).map(|found| start + found).collect();
            found
        })
    }

    /// Returns a reader of the bytes from `position`.
    pub(super) fn reader(&self, position: usize) -> ContentReader<'_, 'a> {
        ContentReader { content: self, position }
    }

    /// Passes the stream to the unpacker, without a copy if it is one piece.
    pub(super) fn visit(&self, name: EntryName, unpacker: &mut Unpacker<'_>) -> Unpacked {
        match self.pieces.as_slice() {
            [Piece { offset, length, .. }] => {
                let bytes = self.file.get(*offset..*offset + *length);
                unpacker.slice(name, bytes.unwrap_or_default())
            }
            pieces => {
                if unpacker.decode(name, self.reader(0))? == Completeness::Complete {
                    for Piece { offset, length, .. } in pieces {
                        let bytes = self.file.get(*offset..*offset + *length);
                        unpacker.set_decoded(bytes.unwrap_or_default());
                    }
                }
                Ok(())
            }
        }
    }
}

/// Returns the positions of bytes, also of those that overlap.
pub(super) fn positions<'a>(bytes: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> {
    let finder = memmem::Finder::new(needle);
    let mut next = 0;
    iter::from_fn(move || {
        let found = next + finder.find(bytes.get(next..)?)?;
        next = found + 1;
        Some(found)
    })
}

/// Reads a stream.
pub(super) struct ContentReader<'c, 'a> {
    content: &'c StreamContent<'a>,
    position: usize,
}

impl Read for ContentReader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = &mut *buffer;
        let mut read = 0;
        self.content.for_each(self.position, rest.len(), |offset, length| {
            let bytes = self.content.file.get(offset..offset + length).unwrap_or_default();
            let (filled, unfilled) = std::mem::take(&mut rest).split_at_mut(bytes.len());
            filled.copy_from_slice(bytes);
            rest = unfilled;
            read += bytes.len();
        });
        self.position += read;
        Ok(read)
    }
}

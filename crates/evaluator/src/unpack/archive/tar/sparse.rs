//! Sparse files: "Storing Sparse Files" in the manual of GNU tar.

use std::io::{self, Read};

use tar::{GnuSparseHeader, Header};

use super::format::{BLOCK, decimal};

/// Number of parts in an extension header of the old GNU format, their size, and the offset of the mark that another one
/// follows.
const EXTENSION_PARTS: usize = 21;
const PART: usize = 24;
const IS_EXTENDED: usize = 504;

/// Where the stored parts of a file belong.
pub(super) struct SparseMap {
    /// Offsets and lengths of the parts, bytes.
    parts: Vec<(u64, u64)>,
    real_size: u64,
    /// Whether the map is at the start of the content (pax, version 1.0).
    is_in_content: bool,
}

impl SparseMap {
    pub(super) fn new(parts: Vec<(u64, u64)>, real_size: u64) -> Self {
        Self { parts, real_size, is_in_content: false }
    }

    pub(super) fn in_content(real_size: u64) -> Self {
        Self { parts: Vec::new(), real_size, is_in_content: true }
    }

    /// Parses the map in a header of the old GNU format, and in the extension headers after it. Returns the length of
    /// the extension headers as well.
    pub(super) fn parse_gnu(header: &Header, after: Option<&[u8]>) -> (Option<Self>, usize) {
        let Some(gnu) = header.as_gnu() else { return (None, 0) };
        let mut parts: Vec<_> = gnu.sparse.iter().map_while(part).collect();
        let mut extensions = after.unwrap_or_default().chunks_exact(BLOCK);
        let (mut is_extended, mut length) = (gnu.is_extended(), 0);
        while is_extended && let Some(extension) = extensions.next() {
            let fields = extension.chunks_exact(PART).take(EXTENSION_PARTS);
            parts.extend(fields.map_while(|field| {
                let (offset, rest) = field.split_first_chunk()?;
                part(&GnuSparseHeader { offset: *offset, numbytes: *rest.first_chunk()? })
            }));
            is_extended = extension.get(IS_EXTENDED).is_some_and(|mark| *mark != 0);
            length += BLOCK;
        }
        let real_size = gnu.real_size().unwrap_or_default();
        (Some(Self::new(parts, real_size)), length)
    }

    /// Parses the map at the start of `content`: decimal numbers in lines, padded to a block. Returns the content after
    /// the map.
    fn parse_content<'a>(&mut self, content: &'a [u8]) -> &'a [u8] {
        let mut position = 0;
        let mut next = || {
            let rest = content.get(position..)?;
            let end = rest.iter().take(20).position(|byte| *byte == b'\n')?;
            position += end + 1;
            decimal(rest.get(..end)?)
        };
        let count = next().unwrap_or_default();
        for _ in 0..count {
            let (Some(offset), Some(length)) = (next(), next()) else { break };
            self.parts.push((offset, length));
        }
        content.get(position.next_multiple_of(BLOCK)..).unwrap_or_default()
    }
}

fn part(header: &GnuSparseHeader) -> Option<(u64, u64)> {
    if header.is_empty() {
        return None;
    }
    Some((header.offset().ok()?, header.length().ok()?))
}

/// A sparse file with its holes.
#[derive(Clone)]
pub(super) struct SparseFile<'a> {
    /// Offset and content of the parts, the last one first.
    parts: Vec<(u64, &'a [u8])>,
    /// Number of zeros, then the stored bytes, before the next part.
    zeros: u64,
    stored: &'a [u8],
    position: u64,
    real_size: u64,
}

impl<'a> SparseFile<'a> {
    pub(super) fn new(mut map: SparseMap, mut content: &'a [u8]) -> Self {
        if map.is_in_content {
            content = map.parse_content(content);
        }
        let mut parts = Vec::with_capacity(map.parts.len());
        for (offset, length) in map.parts {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let (part, rest) = content.split_at_checked(length).unwrap_or((content, &[]));
            content = rest;
            parts.push((offset, part));
        }
        parts.reverse();
        Self { parts, zeros: 0, stored: &[], position: 0, real_size: map.real_size }
    }

    /// Returns whether no part starts before the end of the one before. Programs that write the parts to their offsets
    /// give another file otherwise, see [`Self::sorted`].
    pub(super) fn is_ordered(&self) -> bool {
        self.parts.is_sorted_by(|next, part| part.0.saturating_add(part.1.len() as u64) <= next.0)
    }

    /// Returns the file with its parts in the order of their offsets.
    pub(super) fn sorted(&self) -> Self {
        let mut sorted = self.clone();
        sorted.parts.sort_by_key(|part| std::cmp::Reverse(part.0));
        sorted
    }
}

impl Read for SparseFile<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        while self.zeros == 0 && self.stored.is_empty() {
            if let Some((offset, part)) = self.parts.pop() {
                self.zeros = offset.saturating_sub(self.position);
                self.stored = part;
            } else if self.position < self.real_size {
                self.zeros = self.real_size - self.position;
            } else {
                return Ok(0);
            }
        }
        let length = if self.zeros > 0 {
            let length = usize::try_from(self.zeros).unwrap_or(usize::MAX).min(output.len());
            output.iter_mut().take(length).for_each(|byte| *byte = 0);
            self.zeros -= length as u64;
            length
        } else {
            self.stored.read(output)?
        };
        self.position = self.position.saturating_add(length as u64);
        Ok(length)
    }
}

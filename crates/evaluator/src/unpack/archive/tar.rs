//! tar: v7, ustar, GNU and pax archives.
//!
//! Programs differ in where they look for the next header: after the content, after a defect, after the end of the
//! archive, after a link with a size. All headers that one of them finds are read.

mod format;
mod pax;
mod sparse;

use tar::Header;

use self::{
    format::BLOCK,
    pax::PaxRecords,
    sparse::{SparseFile, SparseMap},
};
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        name::EntryName,
        unpacker::{Unpacked, Unpacker, WalkEnd},
    },
};

/// Offset of the magic number of ustar, pax and GNU archives.
const MAGIC_OFFSET: usize = 257;

const MAGIC: &[u8; 5] = b"ustar";

/// Maximum number of sizes for all files that are read.
const MAX_GLOBAL_SIZES: usize = 4;

pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: MAGIC, offset: MAGIC_OFFSET, extent, is_preferred: true };

/// Returns the length of the first member of an archive, if its header is valid.
fn extent(archive: &[u8]) -> Option<usize> {
    let block = block_at(archive, 0).filter(|block| is_header(block))?;
    let header = Header::from_byte_slice(block);
    let size = match header.entry_type().as_byte() {
        b'1'..=b'6' => 0,
        _ => usize::try_from(header.entry_size().ok()?).ok()?,
    };
    size.checked_add(BLOCK)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    // GNU tar reads archives with a wrong checksum in the first header from the second header on.
    bytes.get(..BLOCK).is_some_and(|block| has_magic(block) || is_header(block))
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut archive = TarArchive {
        bytes,
        is_ended: false,
        has_end: false,
        data_end: 0,
        extended: Extended::default(),
        is_pax: false,
        global_sizes: Vec::new(),
    };
    let mut position = 0;
    while let Some(block) = block_at(bytes, position) {
        position = archive.block(position, block, unpacker)?;
    }
    let rest = bytes.get(position..).unwrap_or_default();
    if !archive.is_ended && position >= archive.data_end && rest.iter().any(|byte| *byte != 0) {
        unpacker.note(NoteKind::Unreadable, "the last tar header is truncated");
    }
    Ok(())
}

fn block_at(bytes: &[u8], position: usize) -> Option<&[u8]> {
    bytes.get(position..position.checked_add(BLOCK)?)
}

fn has_magic(block: &[u8]) -> bool {
    block.get(MAGIC_OFFSET..).is_some_and(|magic| magic.starts_with(MAGIC))
}

/// Returns whether the checksum is valid: the sum of all bytes, signed or unsigned, with spaces in its own place.
fn is_header(block: &[u8]) -> bool {
    let (Some(before), Some(after)) = (block.get(..148), block.get(156..)) else { return false };
    let Ok(expected) = Header::from_byte_slice(block).cksum() else { return false };
    let other = || before.iter().chain(after);
    let spaces = 8 * u32::from(b' ');
    let unsigned = spaces + other().map(|byte| u32::from(*byte)).sum::<u32>();
    // The signed value of a byte above 127 is 256 less.
    let high = other().map(|byte| u32::from(byte >> 7)).sum::<u32>();
    // The sum of an empty block is the sum of the spaces.
    unsigned != spaces && (expected == unsigned || expected == unsigned.wrapping_sub(256 * high))
}

/// Attributes of the next file from the extended headers before it.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    pax: PaxRecords,
}

struct TarArchive<'a> {
    bytes: &'a [u8],
    /// Whether the last block was an end of the archive. Anything may follow.
    is_ended: bool,
    /// Whether there was an end of two blocks.
    has_end: bool,
    /// Blocks before this offset may be contents, so that they need not be headers.
    data_end: usize,
    extended: Extended,
    /// Whether an extended header of pax was read.
    is_pax: bool,
    /// Sizes of the contents of all files, from extended headers for all files.
    global_sizes: Vec<u64>,
}

impl<'a> TarArchive<'a> {
    /// Reads the block at `position`, and the content after it if the block is a header. Returns the position of the
    /// next block.
    fn block(
        &mut self,
        position: usize,
        block: &'a [u8],
        unpacker: &mut Unpacker<'_>,
    ) -> Result<usize, WalkEnd> {
        let next = position + BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            // Two empty blocks end an archive. Some programs end it after one of them.
            if self.is_ended && !self.has_end && position >= self.data_end {
                self.has_end = true;
                unpacker.set_ended(self.bytes.get(..next).unwrap_or(self.bytes));
            }
            self.is_ended = true;
            return Ok(next);
        }
        if is_header(block) {
            self.is_ended = false;
            unpacker.set_read(block);
            return self.member(next, Header::from_byte_slice(block), unpacker);
        }
        if !self.is_ended && position >= self.data_end {
            unpacker.note(NoteKind::Unreadable, "a tar header is damaged");
            // Some programs ignore the checksum, others continue at the next valid header.
            if has_magic(block) {
                let header = Header::from_byte_slice(block);
                let size = header.entry_size().unwrap_or_default();
                let (content, end) = self.content(next, size);
                self.data_end = self.data_end.max(end);
                if !content.is_empty() {
                    unpacker.slice(EntryName::file(header.path_bytes()), content)?;
                }
            }
        }
        Ok(next)
    }

    /// Reads the content of a member, which starts at `start`. Returns the position of the next block.
    fn member(
        &mut self,
        start: usize,
        header: &Header,
        unpacker: &mut Unpacker<'_>,
    ) -> Result<usize, WalkEnd> {
        let Ok(size) = header.entry_size() else {
            // Some programs read the digits up to the first other character.
            unpacker.note(NoteKind::Inconsistent, "the size of a file in a tar archive is invalid");
            let (content, end) = self.content(start, leading_octal(&header.as_old().size));
            self.data_end = self.data_end.max(end);
            if !content.is_empty() {
                unpacker.slice(EntryName::file(header.path_bytes()), content)?;
            }
            return Ok(start);
        };
        let (content, end) = self.content(start, size);
        match header.entry_type().as_byte() {
            b'L' => self.extended.name = Some(before_zero(content).to_vec()),
            b'x' | b'X' => {
                // Python gives precedence to the first one of two headers.
                let is_second = self.extended.pax.change_content();
                self.extended.pax = PaxRecords::parse(content);
                if self.extended.pax.is_ambiguous || is_second {
                    unpacker
                        .note(NoteKind::Inconsistent, "a pax header in a tar archive is damaged");
                }
                self.is_pax = true;
            }
            b'g' => {
                let records = PaxRecords::parse(content);
                if records.is_sparse() {
                    // For Python, the next file with a header of its own is sparse.
                    unpacker.note(NoteKind::Inconsistent, "a sparse file in a global pax header");
                }
                self.global_sizes.extend(records.sizes);
                self.global_sizes.truncate(MAX_GLOBAL_SIZES);
                self.is_pax = true;
            }
            // The target of a link.
            b'K' => {}
            b'1'..=b'6' => return self.without_content(start, size, header, unpacker),
            _ => return self.file(start, size, header, unpacker),
        }
        Ok(end)
    }

    /// Reads a link, directory or device. Some programs expect no content after the header of one with a size.
    fn without_content(
        &mut self,
        start: usize,
        size: u64,
        header: &Header,
        unpacker: &mut Unpacker<'_>,
    ) -> Result<usize, WalkEnd> {
        let extended = std::mem::take(&mut self.extended);
        let size = extended.pax.sizes.first().copied().unwrap_or(size);
        let (content, end) = self.content(start, size);
        let name = extended.file_name(header);
        if content.is_empty() {
        } else if !block_at(self.bytes, start).is_some_and(is_header) {
            self.data_end = self.data_end.max(end);
            unpacker.slice(name, content)?;
        } else if self.is_pax {
            // bsdtar always expects content after a link in a pax archive. Here it is most likely the next members.
            unpacker.alternative(|unpacker| unpacker.slice(name, content))?;
        }
        Ok(start)
    }

    /// Reads a file.
    fn file(
        &mut self,
        mut start: usize,
        size: u64,
        header: &Header,
        unpacker: &mut Unpacker<'_>,
    ) -> Result<usize, WalkEnd> {
        let extended = std::mem::take(&mut self.extended);
        let name = extended.file_name(header);
        let (pax_size, other_sizes) = self.sizes(&extended, size);
        let mut map = extended.pax.sparse_map(pax_size);
        if header.entry_type().is_gnu_sparse() {
            let (gnu_map, length) = SparseMap::parse_gnu(header, self.bytes.get(start..));
            map = gnu_map;
            start = start.saturating_add(length);
        }
        let (content, end) = self.content(start, pax_size);
        if (content.len() as u64) < pax_size {
            unpacker.note(NoteKind::Unreadable, "a file in a tar archive is truncated");
        }
        if let Some(map) = map {
            let file = SparseFile::new(map, content);
            if !file.is_ordered() {
                unpacker.note(
                    NoteKind::Inconsistent,
                    "parts of a sparse file in a tar archive overlap",
                );
                unpacker.decode(name.clone(), file.sorted())?;
            }
            unpacker.decode(name.clone(), file)?;
            // 7-Zip and old programs know no sparse files.
            unpacker.alternative(|unpacker| unpacker.slice(name.clone(), content))?;
        } else if !content.is_empty() {
            unpacker.slice(name.clone(), content)?;
        }
        // Some programs ignore the size in a pax header.
        let mut next = end;
        for other_size in other_sizes {
            let (other_content, other_end) = self.content(start, other_size);
            if other_content.len() == content.len() {
                continue;
            }
            unpacker.note(NoteKind::Inconsistent, "a file in a tar archive has two sizes");
            if !other_content.is_empty() {
                unpacker.slice(name.clone(), other_content)?;
            }
            self.data_end = self.data_end.max(end).max(other_end);
            next = next.min(other_end);
        }
        Ok(next)
    }

    /// Returns the sizes that programs use for a file whose header states `size`: first that of most programs, then
    /// others.
    fn sizes(&self, extended: &Extended, size: u64) -> (u64, Vec<u64>) {
        let pax = extended.pax.sizes.iter().chain(&self.global_sizes);
        let mut sizes: Vec<_> = pax.copied().chain([size]).collect();
        let first = sizes.remove(0);
        (first, sizes)
    }

    /// Returns the content at `start`, as far as the archive reaches, and the position of the next block.
    fn content(&self, start: usize, size: u64) -> (&'a [u8], usize) {
        let rest = self.bytes.get(start..).unwrap_or_default();
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let content = rest.get(..size).unwrap_or(rest);
        let end = size.checked_next_multiple_of(BLOCK).and_then(|size| start.checked_add(size));
        (content, end.unwrap_or(usize::MAX).min(self.bytes.len()))
    }
}

impl Extended {
    fn file_name(&self, header: &Header) -> EntryName {
        match self.pax.name.as_ref().or(self.name.as_ref()) {
            Some(name) => EntryName::file(name),
            None => EntryName::file(header.path_bytes()),
        }
    }
}

/// Parses the octal digits after spaces at the start of a field.
fn leading_octal(field: &[u8]) -> u64 {
    let digits = field.trim_ascii_start().iter().take_while(|byte| matches!(byte, b'0'..=b'7'));
    digits.fold(0, |number, digit| number * 8 + u64::from(digit - b'0'))
}

fn before_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

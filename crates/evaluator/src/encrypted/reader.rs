//! Positional reads within a bound, and the search for archives after other data.

use std::io;

use mcs_sandbox::JobMedia;
use memchr::memchr2_iter;

/// Cost of a read in addition to its length.
const READ_COST: u64 = 128;

/// Read-ahead for structures that are read sequentially, bytes.
pub(super) const WINDOW: usize = 4096;

/// Length of the longest signature, bytes.
const MAX_SIGNATURE: usize = 8;

/// Range in which extractors search for the signature of an archive, bytes. 7-Zip accepts 8 MiB before the signature
/// (`kMaxCheckStartPosition`), unrar 4 MiB (`MAXSFXSIZE`).
const SEARCH_RANGE: u64 = (8 << 20) + MAX_SIGNATURE as u64;

/// Maximum number of bytes of RAR and 7z headers that are parsed in one file. Bounds the time for headers that many
/// signatures share.
const MAX_PARSED: u64 = 64 << 20;

/// Maximum number of archive signatures in one file. Ordinary files contain a few.
const MAX_ARCHIVES: usize = 4096;

/// Positional reading of media.
pub(crate) trait ReadAt {
    /// Reads bytes at an offset. Returns their number, which may be smaller than the buffer; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for JobMedia {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Self::read_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).ok();
        let rest = start.and_then(|start| self.get(start..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        for (target, byte) in buffer.iter_mut().zip(rest) {
            *target = *byte;
        }
        Ok(length)
    }
}

/// Reason why an examination stopped early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bound on the cost of reads was exceeded.
    Bound,
    Io(io::Error),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signature {
    Rar4,
    Rar5,
    SevenZip,
}

pub(super) struct BoundedReader<'s, S: ?Sized> {
    source: &'s S,
    pub(super) length: u64,
    /// Remaining cost of reads.
    budget: u64,
    /// Remaining bytes of RAR and 7z headers.
    parsing_budget: u64,
    window: Vec<u8>,
    window_offset: u64,
}

impl<'s, S: ReadAt + ?Sized> BoundedReader<'s, S> {
    pub(super) fn new(source: &'s S, length: u64) -> Self {
        let budget = length.saturating_mul(8).saturating_add(16 << 20);
        let (window, window_offset) = (Vec::new(), 0);
        Self { source, length, budget, parsing_budget: MAX_PARSED, window, window_offset }
    }

    /// Counts bytes of RAR and 7z headers. Fails above [`MAX_PARSED`].
    pub(super) fn charge_parsing(&mut self, bytes: u64) -> Result<(), Stop> {
        self.parsing_budget = self.parsing_budget.checked_sub(bytes).ok_or(Stop::Bound)?;
        Ok(())
    }

    /// Fills the buffer, or reads to the end of the file. Returns the number of bytes.
    pub(super) fn fill(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Stop> {
        let left = self.length.saturating_sub(offset);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..wanted).filter(|rest| !rest.is_empty()) {
            let max_cost = rest.len() as u64 + READ_COST;
            if self.budget < max_cost {
                return Err(Stop::Bound);
            }
            self.budget -= READ_COST;
            match self.source.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    self.budget = self.budget.saturating_sub(read as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Stop::Io(error)),
            }
        }
        Ok(filled)
    }

    /// Reads exactly `N` bytes. Returns `None` if the file ends before.
    pub(super) fn exact<const N: usize>(&mut self, offset: u64) -> Result<Option<[u8; N]>, Stop> {
        let mut bytes = [0; N];
        Ok((self.fill(&mut bytes, offset)? == N).then_some(bytes))
    }

    /// Like [`Self::exact`], but reads ahead, for structures that are read sequentially. `length` is at most
    /// [`WINDOW`].
    pub(super) fn ahead(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, Stop> {
        let end = offset.saturating_add(length as u64);
        if offset < self.window_offset || end > self.window_offset + self.window.len() as u64 {
            let mut window = std::mem::take(&mut self.window);
            window.resize(WINDOW, 0);
            let filled = self.fill(&mut window, offset)?;
            window.truncate(filled);
            (self.window, self.window_offset) = (window, offset);
        }
        let start = usize::try_from(offset - self.window_offset).unwrap_or(usize::MAX);
        Ok(self.window.get(start..start.saturating_add(length)))
    }

    pub(super) fn starts_with(&mut self, signature: &[u8]) -> Result<bool, Stop> {
        Ok(self.ahead(0, signature.len())? == Some(signature))
    }

    /// Returns the offsets of RAR and 7z archives within the first [`SEARCH_RANGE`] bytes.
    pub(super) fn archives(&mut self) -> Result<Vec<(u64, Signature)>, Stop> {
        const CHUNK_SIZE: usize = 256 * 1024;
        let mut archives = Vec::new();
        let end = self.length.min(SEARCH_RANGE);
        let mut buffer = vec![0; usize::try_from(end).unwrap_or(CHUNK_SIZE).min(CHUNK_SIZE)];
        let mut offset = 0;
        while offset < end {
            let filled = self.fill(&mut buffer, offset)?;
            let chunk = buffer.get(..filled).unwrap_or_default();
            // A signature across the end of the chunk is found in the next one.
            let is_last = offset + filled as u64 >= end || filled <= MAX_SIGNATURE;
            let searched = if is_last { filled } else { filled - MAX_SIGNATURE };
            for start in memchr2_iter(b'R', b'7', chunk.get(..searched).unwrap_or(chunk)) {
                let bytes = chunk.get(start..).unwrap_or_default();
                if let Some(signature) = signature(bytes) {
                    if archives.len() == MAX_ARCHIVES {
                        return Err(Stop::Bound);
                    }
                    archives.push((offset + start as u64, signature));
                }
            }
            if is_last {
                break;
            }
            offset += searched as u64;
        }
        Ok(archives)
    }
}

fn signature(bytes: &[u8]) -> Option<Signature> {
    [
        (b"Rar!\x1a\x07\x00".as_slice(), Signature::Rar4),
        (b"Rar!\x1a\x07\x01\x00", Signature::Rar5),
        (b"7z\xbc\xaf\x27\x1c", Signature::SevenZip),
    ]
    .into_iter()
    .find_map(|(prefix, signature)| bytes.starts_with(prefix).then_some(signature))
}

/// Returns the little-endian number at `offset`; 0 beyond the end.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    let bytes = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

/// Like [`u16_at`].
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let bytes = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Like [`u16_at`].
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let bytes = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Returns the CRC-32 that zip, RAR and 7z use. Not optimized; intended for short inputs.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ POLYNOMIAL }
        })
    })
}

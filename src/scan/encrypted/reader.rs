//! Bounded positional reading, and the search for archives behind other bytes.

use std::io;

use super::ReadAt;

/// Cost of a read beside its bytes.
const READ_COST: u64 = 128;

/// Bytes that are read at a time where a structure is read from beginning to end.
pub(super) const WINDOW: usize = 4096;

/// Archives begin within so many bytes in what programs for RAR and 7z open: unrar's `MAXSFXSIZE`, 7-Zip's
/// `kMaxCheckStartPosition`.
const MAX_PREFIX: u64 = 4 << 20;

/// Signatures of archives in one file: honest files have a few at most.
const MAX_ARCHIVES: usize = 4096;

/// Why an examination stops.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bound on the cost of all reads is reached.
    Bound,
    Io(io::Error),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signature {
    Rar4,
    Rar5,
    SevenZip,
}

pub(super) struct Reader<'s, S: ?Sized> {
    source: &'s S,
    pub(super) length: u64,
    /// What may still be spent on reads.
    budget: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'s, S: ReadAt + ?Sized> Reader<'s, S> {
    pub(super) fn new(source: &'s S, length: u64) -> Self {
        let budget = length.saturating_mul(8).saturating_add(16 << 20);
        Self { source, length, budget, window: Vec::new(), window_at: 0 }
    }

    /// Fills the buffer as far as the file goes; returns the number of bytes.
    pub(super) fn fill(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Stop> {
        let left = self.length.saturating_sub(offset);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..wanted).filter(|rest| !rest.is_empty()) {
            let most = rest.len() as u64 + READ_COST;
            if self.budget < most {
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

    /// Reads exactly these bytes; `None` where the file ends before.
    pub(super) fn exact<const N: usize>(&mut self, offset: u64) -> Result<Option<[u8; N]>, Stop> {
        let mut bytes = [0; N];
        Ok((self.fill(&mut bytes, offset)? == N).then_some(bytes))
    }

    /// Like [`Self::exact`], out of a window that is read ahead: for structures that are read from beginning to
    /// end. `length` is at most [`WINDOW`].
    pub(super) fn ahead(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, Stop> {
        let end = offset.saturating_add(length as u64);
        if offset < self.window_at || end > self.window_at + self.window.len() as u64 {
            let mut window = std::mem::take(&mut self.window);
            window.resize(WINDOW, 0);
            let filled = self.fill(&mut window, offset)?;
            window.truncate(filled);
            (self.window, self.window_at) = (window, offset);
        }
        let from = usize::try_from(offset - self.window_at).unwrap_or(usize::MAX);
        Ok(self.window.get(from..from.saturating_add(length)))
    }

    pub(super) fn starts_with(&mut self, signature: &[u8]) -> Result<bool, Stop> {
        Ok(self.ahead(0, signature.len())? == Some(signature))
    }

    /// The archives of RAR and 7-Zip within the first [`MAX_PREFIX`] bytes.
    pub(super) fn archives(&mut self) -> Result<Vec<(u64, Signature)>, Stop> {
        const PIECE: usize = 256 * 1024;
        const LONGEST: usize = 8;
        let mut found = Vec::new();
        let end = self.length.min(MAX_PREFIX);
        let mut buffer = vec![0; usize::try_from(end).unwrap_or(PIECE).min(PIECE)];
        let mut at = 0;
        while at < end {
            let filled = self.fill(&mut buffer, at)?;
            let piece = buffer.get(..filled).unwrap_or_default();
            // A signature across the end is found in the next piece.
            let last = at + filled as u64 >= end || filled <= LONGEST;
            let kept = if last { filled } else { filled - LONGEST };
            let first_byte = |byte: &u8| matches!(byte, b'R' | b'7');
            let starts = piece.iter().take(kept).enumerate().filter(|(_, it)| first_byte(it));
            for (start, _) in starts {
                let here = piece.get(start..).unwrap_or_default();
                if let Some(signature) = signature(here) {
                    if found.len() == MAX_ARCHIVES {
                        return Err(Stop::Bound);
                    }
                    found.push((at + start as u64, signature));
                }
            }
            if last {
                break;
            }
            at += kept as u64;
        }
        Ok(found)
    }
}

fn signature(bytes: &[u8]) -> Option<Signature> {
    [
        (b"Rar!\x1a\x07\x00".as_slice(), Signature::Rar4),
        (b"Rar!\x1a\x07\x01\x00", Signature::Rar5),
        (b"7z\xbc\xaf\x27\x1c", Signature::SevenZip),
    ]
    .into_iter()
    .find_map(|(signature, kind)| bytes.starts_with(signature).then_some(kind))
}

/// The little-endian number at `at`; 0 where there is none.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let bytes = bytes.get(at..).and_then(|it| it.first_chunk());
    bytes.map_or(0, |it| u16::from_le_bytes(*it))
}

/// See [`u16_at`].
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(|it| it.first_chunk());
    bytes.map_or(0, |it| u32::from_le_bytes(*it))
}

/// See [`u16_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..).and_then(|it| it.first_chunk());
    bytes.map_or(0, |it| u64::from_le_bytes(*it))
}

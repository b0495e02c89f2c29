//! Archives that do not start where the object starts. 7-Zip searches files of kinds that it does not know for an
//! archive, and unpacks the first one.

use std::ops::Range;

use super::kind::Kind;

/// Maximum number of archives in one object that are unpacked at an offset. 7-Zip unpacks the first one only; the others
/// are for the case that it finds a header invalid.
pub(super) const MAX_EMBEDDED: usize = 8;

/// How an archive is found at any offset.
#[derive(Clone, Copy)]
pub(super) struct ArchiveSignature {
    pub(super) magic: &'static [u8],
    /// Offset of the magic number in the archive, bytes.
    pub(super) offset: usize,
    /// Returns the length of the first part of the archive, if bytes with the magic number have a valid header.
    pub(super) extent: fn(&[u8]) -> Option<usize>,
    /// Whether 7-Zip prefers archives of this kind to another archive at the start of the file.
    pub(super) is_preferred: bool,
}

impl ArchiveSignature {
    pub(super) fn is_at_start(&self, bytes: &[u8]) -> bool {
        bytes.get(self.offset..).is_some_and(|magic| magic.starts_with(self.magic))
    }
}

/// A signature in an object.
pub(super) struct Occurrence<'a> {
    pub(super) kind: Kind,
    /// The object from the start of the archive on.
    pub(super) archive: &'a [u8],
    /// The archive up to the end of its first part, as far as the object reaches.
    pub(super) first_part: &'a [u8],
    pub(super) magic: &'a [u8],
}

/// Returns the archives after the start of an object.
pub(super) fn occurrences<'a>(
    bytes: &'a [u8],
    signatures: &'a [(Kind, ArchiveSignature)],
) -> impl Iterator<Item = Occurrence<'a>> {
    // The first byte of most positions is that of no signature.
    let mut is_first = [false; 256];
    for (_, signature) in signatures {
        if let Some(mark) =
            signature.magic.first().and_then(|first| is_first.get_mut(usize::from(*first)))
        {
            *mark = true;
        }
    }
    let candidates = bytes.iter().enumerate().filter(move |(_, byte)| {
        // An index of the type `u8` is always valid.
        is_first.get(usize::from(**byte)).copied().unwrap_or_default()
    });
    candidates.flat_map(move |(position, first)| {
        let of_byte =
            signatures.iter().filter(move |(_, signature)| signature.magic.first() == Some(first));
        of_byte.filter_map(move |(kind, signature)| at(bytes, position, *kind, signature))
    })
}

fn at<'a>(
    bytes: &'a [u8],
    position: usize,
    kind: Kind,
    signature: &ArchiveSignature,
) -> Option<Occurrence<'a>> {
    let magic = bytes.get(position..)?.get(..signature.magic.len())?;
    if magic != signature.magic {
        return None;
    }
    let start = position.checked_sub(signature.offset).filter(|start| *start > 0)?;
    let archive = bytes.get(start..)?;
    let extent = (signature.extent)(archive)?;
    let first_part = archive.get(..extent).unwrap_or(archive);
    Some(Occurrence { kind, archive, first_part, magic })
}

/// Parts of an object that were examined, by their addresses.
#[derive(Default)]
pub(super) struct ExaminedParts {
    /// Starts and ends of the parts, after [`Self::sort`] in ascending order, each end the largest one so far.
    parts: Vec<Range<usize>>,
    is_sorted: bool,
}

impl ExaminedParts {
    pub(super) fn of(part: &[u8]) -> Self {
        let mut parts = Self::default();
        parts.add(part);
        parts
    }

    pub(super) fn add(&mut self, part: &[u8]) {
        let range = part.as_ptr_range();
        self.parts.push(range.start as usize..range.end as usize);
        self.is_sorted = false;
    }

    /// Returns whether a range is inside one of the parts.
    pub(super) fn contain(&mut self, range: &[u8]) -> bool {
        self.sort();
        let range = range.as_ptr_range();
        let after = self.parts.partition_point(|part| part.start <= range.start as usize);
        let last = after.checked_sub(1).and_then(|index| self.parts.get(index));
        last.is_some_and(|part| part.end >= range.end as usize)
    }

    fn sort(&mut self) {
        if self.is_sorted {
            return;
        }
        self.parts.sort_unstable_by_key(|part| part.start);
        let mut end = 0;
        for part in &mut self.parts {
            end = end.max(part.end);
            part.end = end;
        }
        self.is_sorted = true;
    }
}

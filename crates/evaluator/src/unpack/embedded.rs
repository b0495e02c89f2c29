//! Archives that do not start where the object starts. 7-Zip searches files of kinds that it does not know for an
//! archive, and unpacks the first one.

use std::{iter, ops::Range};

use aho_corasick::{AhoCorasick, Input, MatchKind};

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

/// Searches objects for the signatures of all kinds.
pub(super) struct SignatureSearch {
    signatures: Vec<(Kind, ArchiveSignature)>,
    magics: AhoCorasick,
}

impl SignatureSearch {
    #[expect(clippy::expect_used, reason = "the signatures are constants")]
    pub(super) fn new(signatures: Vec<(Kind, ArchiveSignature)>) -> Self {
        let magics = signatures.iter().map(|(_, signature)| signature.magic);
        // Only searches for the leftmost match use vector instructions, which take a tenth of the time.
        let magics = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(magics);
        Self { magics: magics.expect("short patterns"), signatures }
    }

    /// Returns the archives after the start of an object: all, or those that 7-Zip prefers.
    pub(super) fn occurrences<'a>(
        &'a self,
        bytes: &'a [u8],
        only_preferred: bool,
    ) -> impl Iterator<Item = Occurrence<'a>> {
        let mut next = 0;
        let positions = iter::from_fn(move || {
            let found = self.magics.find(Input::new(bytes).range(next..))?;
            // Signatures may overlap.
            next = found.start() + 1;
            Some(found.start())
        });
        positions.flat_map(move |position| {
            let signatures = self.signatures.iter();
            signatures
                .filter(move |(_, signature)| signature.is_preferred || !only_preferred)
                .filter_map(move |(kind, signature)| at(bytes, position, *kind, signature))
        })
    }
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

/// The parts of one object that formats have read.
#[derive(Default)]
pub(super) struct ReadParts {
    /// Length of the object, bytes.
    length: usize,
    /// Parts that were examined as objects.
    files: ExaminedParts,
    /// Parts that the format of a kind has read.
    headers: Vec<(Kind, ExaminedParts)>,
}

impl ReadParts {
    pub(super) fn of_object(bytes: &[u8]) -> Self {
        Self { length: bytes.len(), ..Self::default() }
    }

    /// Adds a part that is examined as an object. A copy of the whole object is not unpacked again.
    pub(super) fn add_file(&mut self, part: &[u8]) {
        if part.len() < self.length {
            self.files.add(part);
        }
    }

    /// Adds a part that the format of this kind has read.
    pub(super) fn add_header(&mut self, kind: Kind, part: &[u8]) {
        match self.headers.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, parts)) => parts.add(part),
            None => self.headers.push((kind, ExaminedParts::of(part))),
        }
    }

    /// Returns whether an archive was examined as an object, or was already read by its format.
    pub(super) fn contain(&mut self, found: &Occurrence<'_>) -> bool {
        let headers = self.headers.iter_mut().find(|(kind, _)| *kind == found.kind);
        headers.is_some_and(|(_, parts)| parts.contain(found.magic))
            || self.files.contain(found.first_part)
    }
}

/// Parts of an object that were examined, by their addresses.
#[derive(Default)]
struct ExaminedParts {
    /// Starts and ends of the parts, after [`Self::sort`] in ascending order, each end the largest one so far.
    parts: Vec<Range<usize>>,
    is_sorted: bool,
}

impl ExaminedParts {
    fn of(part: &[u8]) -> Self {
        let mut parts = Self::default();
        parts.add(part);
        parts
    }

    fn add(&mut self, part: &[u8]) {
        let range = part.as_ptr_range();
        self.parts.push(range.start as usize..range.end as usize);
        self.is_sorted = false;
    }

    /// Returns whether a range is inside one of the parts.
    fn contain(&mut self, range: &[u8]) -> bool {
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

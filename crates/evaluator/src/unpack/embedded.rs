//! Archives that do not start where the object starts. 7-Zip searches files of kinds that it does not know for an
//! archive, and unpacks the first one.

use std::{iter, ops::Range};

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::kind::Kind;

/// Maximum number of archives in one object that are unpacked at an offset. 7-Zip unpacks the first one only; the others
/// are for the case that it finds a header invalid.
pub(super) const MAX_EMBEDDED: usize = 8;

/// Maximum number of complete archives in an object that are known again in a copy of the object. Bounds the memory.
const MAX_ENDED: usize = 64;

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
    /// Whether 7-Zip prefers it to another archive at the start of the object.
    is_preferred: bool,
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

    /// Returns the archives after the start of an object.
    pub(super) fn occurrences<'a>(
        &'a self,
        bytes: &'a [u8],
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
            signatures.filter_map(move |(kind, signature)| at(bytes, position, *kind, signature))
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
    let is_preferred = signature.is_preferred;
    Some(Occurrence { kind, archive, first_part, magic, is_preferred })
}

/// The parts of one object that formats have read.
#[derive(Default)]
pub(super) struct ReadParts {
    /// Addresses of the object.
    object: Range<usize>,
    /// Parts that were examined as objects.
    files: ExaminedParts,
    /// Parts that the format of a kind has read.
    headers: PartsOfKinds,
    /// Parts that were decoded without an error. The result was examined.
    decoded: ExaminedParts,
    /// Files that are allowed by their digest.
    allowed: ExaminedParts,
    /// Archives that were unpacked up to their end.
    ended: PartsOfKinds,
}

impl ReadParts {
    pub(super) fn of_object(bytes: &[u8]) -> Self {
        Self { object: addresses(bytes), ..Self::default() }
    }

    /// Adds a part that is examined as an object. A copy of the whole object is not unpacked again.
    pub(super) fn add_file(&mut self, part: &[u8]) {
        if part.len() < self.object.len() {
            self.files.add(addresses(part));
        }
    }

    /// Adds a part that the format of this kind has read.
    pub(super) fn add_header(&mut self, kind: Kind, part: &[u8]) {
        self.headers.add(kind, addresses(part));
    }

    /// Adds a file that is not unpacked because of its digest.
    pub(super) fn add_allowed(&mut self, file: &[u8]) {
        self.allowed.add(addresses(file));
    }

    /// Adds a part that was decoded without an error.
    pub(super) fn add_decoded(&mut self, part: &[u8]) {
        self.decoded.add(addresses(part));
    }

    /// Adds an archive that was unpacked up to its end.
    pub(super) fn add_ended(&mut self, kind: Kind, archive: &[u8]) {
        self.ended.add(kind, addresses(archive));
    }

    /// Adds the decoded parts and the archives of a file, if it is a part of this object.
    pub(super) fn add_parts_of(&mut self, file: Self) {
        if self.object.start <= file.object.start && file.object.end <= self.object.end {
            self.decoded.parts.extend(file.decoded.parts);
            self.decoded.is_sorted = false;
            file.ended.iter().for_each(|(kind, part)| self.ended.add(kind, part.clone()));
        }
    }

    /// Returns archives that were unpacked up to their end, at most [`MAX_ENDED`], as offsets in the object.
    pub(super) fn ended_offsets(&self) -> Vec<(Kind, Range<usize>)> {
        let offset = |address: usize| address.checked_sub(self.object.start);
        let ended = self.ended.iter();
        ended
            .filter_map(|(kind, part)| Some((kind, offset(part.start)?..offset(part.end)?)))
            .take(MAX_ENDED)
            .collect()
    }

    /// Adds the archives of a file that is equal to an examined one, by [`Self::ended_offsets`] of that one.
    pub(super) fn add_ended_offsets(&mut self, file: &[u8], offsets: &[(Kind, Range<usize>)]) {
        let start = addresses(file).start;
        if self.object.contains(&start) {
            for (kind, part) in offsets {
                self.ended.add(*kind, start + part.start..start + part.end);
            }
        }
    }

    /// Returns whether a signature is not that of an archive, or that of an archive that was already unpacked.
    /// `is_archive`: the object starts with an archive that was read without a problem.
    ///
    /// 7-Zip searches for archives if it rejects the one at the start. After a problem, that is likely. Then an archive
    /// that starts in a file may continue behind the file, so it counts as unpacked only if its end was found. Compressed
    /// data may be crafted to be an archive as well, so they are searched. Without a problem, only bytes that no format
    /// has used are searched: 7-Zip may reject the archive nevertheless, but compressed data in ordinary archives contain
    /// signatures, such as those of bzip2 in a zip, and would be unpacked twice.
    pub(super) fn contain(&mut self, found: &Occurrence<'_>, is_archive: bool) -> bool {
        if self.headers.contain(found.kind, found.magic) || self.allowed.contain(found.first_part) {
            return true;
        }
        let is_likely_read = is_archive && !found.is_preferred;
        let is_decoded = self.decoded.contain(found.first_part);
        if self.files.contain(found.first_part) {
            return is_likely_read
                || (is_decoded && found.kind.is_stream())
                || states_size(found.kind)
                || self.ended.contain(found.kind, found.magic);
        }
        is_likely_read && is_decoded
    }
}

/// Returns whether the first part of an archive of this kind is the whole archive, or as much as other programs need.
fn states_size(kind: Kind) -> bool {
    matches!(kind, Kind::Seven | Kind::Cab | Kind::Iso | Kind::Partitions)
}

fn addresses(bytes: &[u8]) -> Range<usize> {
    let range = bytes.as_ptr_range();
    range.start as usize..range.end as usize
}

/// Parts of an object that the formats of several kinds have read.
#[derive(Default)]
struct PartsOfKinds(Vec<(Kind, ExaminedParts)>);

impl PartsOfKinds {
    fn add(&mut self, kind: Kind, part: Range<usize>) {
        match self.0.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, parts)) => parts.add(part),
            None => self.0.push((kind, ExaminedParts::of(part))),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Kind, &Range<usize>)> {
        self.0.iter().flat_map(|(kind, parts)| parts.parts.iter().map(|part| (*kind, part)))
    }

    fn contain(&mut self, kind: Kind, range: &[u8]) -> bool {
        let parts = self.0.iter_mut().find(|(other, _)| *other == kind);
        parts.is_some_and(|(_, parts)| parts.contain(range))
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
    fn of(part: Range<usize>) -> Self {
        Self { parts: vec![part], is_sorted: true }
    }

    fn add(&mut self, part: Range<usize>) {
        self.parts.push(part);
        self.is_sorted = false;
    }

    /// Returns whether a range is inside one of the parts.
    fn contain(&mut self, range: &[u8]) -> bool {
        self.sort();
        let range = addresses(range);
        let after = self.parts.partition_point(|part| part.start <= range.start);
        let last = after.checked_sub(1).and_then(|index| self.parts.get(index));
        last.is_some_and(|part| part.end >= range.end)
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

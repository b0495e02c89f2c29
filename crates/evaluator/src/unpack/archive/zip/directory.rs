//! Finds the directories of a zip file. Programs search for the end of the directory in different ways, and so may find
//! different directories in one file.

use super::areas::Areas;
use super::record::{
    CENTRAL, CentralHeader, END, END_LENGTH, END64, END64_LENGTH, EndRecord, LOCAL, LOCATOR64,
    LOCATOR64_LENGTH, LocalHeader, SIGNATURE, find, find_last, has,
};
use crate::unpack::fields::u64_at;

/// Length of the end of a file in which programs search for the end of the directory: the record and the longest comment.
const TAIL: usize = END_LENGTH + u16::MAX as usize;

/// A directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ZipDirectory {
    /// Offset of the first record.
    start: usize,
    /// Difference between offsets in the file and offsets in the archive, modulo 2⁶⁴.
    base: u64,
    /// Offset after the last record, as stated.
    stated_end: u64,
    /// Number of records, as stated.
    stated_entries: u64,
    /// Offset of the record for the end of the directory.
    pub(super) end: usize,
}

impl ZipDirectory {
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Returns the offset of an archive whose offsets do not count the data before it, if a local header is there.
    pub(super) fn archive_start(&self, bytes: &[u8]) -> Option<usize> {
        let base = usize::try_from(self.base).ok()?;
        (base > 0 && base <= self.start && has(bytes, base, LOCAL)).then_some(base)
    }

    /// Returns the records, up to the first damaged one.
    pub(super) fn records<'d>(&self, bytes: &'d [u8]) -> impl Iterator<Item = CentralHeader<'d>> {
        let mut offset = self.start;
        std::iter::from_fn(move || {
            let record = CentralHeader::parse(bytes, offset)?;
            offset = record.next;
            Some(record)
        })
    }

    /// Finds the local header of a record. Without one, returns what is at its place.
    pub(super) fn local<'d>(
        &self,
        bytes: &'d [u8],
        record: &CentralHeader<'_>,
    ) -> Option<(usize, LocalHeader<'d>)> {
        let parse = |offset: u64| {
            let offset = usize::try_from(offset).ok()?;
            Some((offset, LocalHeader::parse(bytes, offset)?))
        };
        let (relative, absolute) =
            (parse(record.local.wrapping_add(self.base)), parse(record.local));
        let is_header = |found: &(usize, LocalHeader<'_>)| found.1.has_signature;
        relative.filter(is_header).or(absolute.filter(is_header)).or(relative)
    }

    /// Returns what is wrong with the directory, of which `entries` records up to `end` were read.
    pub(super) fn defect(&self, bytes: &[u8], entries: u64, end: usize) -> Option<Defect> {
        // Archives with more than 65 535 entries state the number modulo 65 536, if they have no zip64 record.
        let differs = entries & 0xffff != self.stated_entries & 0xffff;
        if end as u64 > self.stated_end || differs && entries > self.stated_entries {
            Some(Defect::HiddenRecords)
        } else if (end as u64) < self.stated_end && !has(bytes, end, SIGNATURE) || differs {
            Some(Defect::MissingRecords)
        } else {
            None
        }
    }
}

/// A directory that is not as its end states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Defect {
    /// Some programs ignore the last records.
    HiddenRecords,
    MissingRecords,
}

/// What an end record states: the offset of the record itself, the number of entries, the size of the directory and its
/// offset.
type StatedEnd = (usize, u64, u64, u64);

/// Returns the directories that one end record may refer to: at the stated offset, and directly before the end; by the
/// zip64 records, and without them. For the last end record, also after other data at the stated place (bsdtar).
pub(super) fn directories<'d>(
    bytes: &'d [u8],
    end: &EndRecord,
    is_last: bool,
) -> impl Iterator<Item = ZipDirectory> + use<'d> {
    let zip64 = zip64_ends(bytes, end.position);
    let first64 = zip64.first().copied();
    let before = first64.map_or(end.position, |(position, ..)| position);
    let stated = (end.size != u32::MAX || end.offset != u32::MAX || first64.is_none()).then_some((
        before,
        end.entries.into(),
        end.size.into(),
        end.offset.into(),
    ));
    let position = end.position;
    zip64.into_iter().chain(stated).flat_map(move |(before, entries, size, offset)| {
        let has_directory = move |start: &u64| {
            usize::try_from(*start).is_ok_and(|start| has(bytes, start, CENTRAL))
        };
        let adjacent = (before as u64).checked_sub(size);
        let known = [Some(offset), adjacent].map(|start| start.filter(has_directory));
        let later = adjacent.filter(|_| is_last && known == [None; 2]);
        let later = later.and_then(|start| later_start(bytes, start, before));
        let starts = known.into_iter().chain([later]).zip([Some(offset), adjacent, adjacent]);
        starts.filter_map(move |(start, stated_start)| {
            let stated_start = stated_start?;
            Some(ZipDirectory {
                start: usize::try_from(start?).ok()?,
                base: stated_start.wrapping_sub(offset),
                stated_end: stated_start.saturating_add(size),
                stated_entries: entries,
                end: position,
            })
        })
    })
}

/// Returns the offset of the first record of a directory in a limited area from `start` on, before the end record.
fn later_start(bytes: &[u8], start: u64, end: usize) -> Option<u64> {
    const MAX: usize = 1 << 20;
    let start = usize::try_from(start).ok()?;
    find(bytes, start, end.min(start.saturating_add(MAX)), CENTRAL).map(|start| start as u64)
}

/// Returns the zip64 records that belong to an end record: where the locator states, and directly before it.
fn zip64_ends(bytes: &[u8], end: usize) -> Vec<StatedEnd> {
    let locator = end.checked_sub(LOCATOR64_LENGTH).filter(|at| has(bytes, *at, LOCATOR64));
    let Some(locator) = locator else { return Vec::new() };
    let stated = u64_at(bytes, locator + 8).and_then(|stated| usize::try_from(stated).ok());
    // The offset does not count data before the archive.
    let adjacent = locator.checked_sub(END64_LENGTH).filter(|adjacent| Some(*adjacent) != stated);
    let parse = |position: usize| {
        let field = |offset: usize| u64_at(bytes, position.checked_add(offset)?);
        has(bytes, position, END64).then_some(())?;
        Some((position, field(32)?, field(40)?, field(48)?))
    };
    [stated, adjacent].into_iter().flatten().filter_map(parse).collect()
}

/// The directories of a file.
#[derive(Default, Debug)]
pub(super) struct ZipDirectories {
    /// First the one that most programs use.
    pub(super) list: Vec<ZipDirectory>,
    /// Whether the file states to be an archive without files.
    pub(super) is_empty: bool,
    /// Whether there are more directories than are read.
    pub(super) is_limited: bool,
}

impl ZipDirectories {
    /// Maximum number of directories. One is normal.
    const MAX: usize = 16;

    /// Returns whether the end of the file refers to a directory.
    pub(super) fn is_at_end(bytes: &[u8]) -> bool {
        let tail = bytes.len().saturating_sub(TAIL);
        let mut before = bytes.len();
        let mut is_last = true;
        while let Some(position) = find_last(bytes, tail, before, END) {
            let end = EndRecord::parse(bytes, position);
            if end.is_some_and(|end| directories(bytes, &end, is_last).next().is_some()) {
                return true;
            }
            is_last &= end.is_none();
            before = position + END.len() - 1;
        }
        false
    }

    /// Finds the directories. If the file is only a `container` of an archive, behind something else, others than the
    /// last directory count only if some program would find them: such a file can also be a tar with zips in it.
    pub(super) fn find(bytes: &[u8], is_container: bool) -> Self {
        let mut found = Self::default();
        let mut areas = Areas::default();
        let mut records = bytes.len() / 46 * 2 + 1;
        let tail = bytes.len().saturating_sub(TAIL);
        let lowest = if is_container { tail } else { 0 };
        let mut before = bytes.len();
        let mut is_last = true;
        while let Some(position) = previous_end(bytes, lowest, tail, before, &areas) {
            before = position + END.len() - 1;
            let Some(end) = EndRecord::parse(bytes, position) else { continue };
            let is_first = found.list.is_empty();
            let is_inside = areas.start_around(position).is_some() || is_container && !is_first;
            if is_inside && !end.is_exact(bytes) {
                continue;
            }
            found.is_empty |= end.is_empty();
            let is_last = std::mem::take(&mut is_last);
            for directory in directories(bytes, &end, is_last) {
                let is_same = |other: &ZipDirectory| {
                    (other.start, other.base) == (directory.start, directory.base)
                };
                if found.list.iter().any(is_same) {
                    continue;
                }
                if found.list.len() == Self::MAX || records == 0 {
                    found.is_limited = true;
                    return found;
                }
                found.list.push(directory);
                areas.extend(directory.stated_areas(bytes, &mut records));
            }
        }
        found
    }
}

impl ZipDirectory {
    /// Returns the areas of the directory and of its entries, as stated, of at most `records` records.
    fn stated_areas(&self, bytes: &[u8], records: &mut usize) -> Vec<(usize, usize)> {
        let mut end = self.start;
        let mut areas = Vec::new();
        for record in self.records(bytes).take(*records) {
            *records -= 1;
            end = record.next;
            if let Some((start, local)) = self.local(bytes, &record) {
                let data_end = (local.data as u64).saturating_add(record.header.compressed);
                areas.push((start, usize::try_from(data_end).unwrap_or(usize::MAX)));
            }
        }
        areas.push((self.start, end));
        areas
    }
}

/// Returns the last signature of an end record in `lowest..before`. Below `tail`, areas of entries are not searched,
/// because an entry may be an archive.
fn previous_end(
    bytes: &[u8],
    lowest: usize,
    tail: usize,
    before: usize,
    areas: &Areas,
) -> Option<usize> {
    if let Some(position) = find_last(bytes, tail, before, END) {
        return Some(position);
    }
    let mut before = before.min(tail + END.len() - 1);
    while before > lowest {
        let Some(start) = areas.start_around(before - 1) else {
            let gap = areas.end_before(before).max(lowest);
            if let Some(position) = find_last(bytes, gap, before, END) {
                return Some(position);
            }
            before = gap;
            continue;
        };
        before = start;
    }
    None
}

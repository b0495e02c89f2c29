//! Compound files, [MS-CFB]. All entries of the directory are read, also those that the tree of names does not contain,
//! and counts and reserved fields are ignored: Office opens and repairs files that a strict reader refuses.

use std::{collections::HashSet, iter};

use crate::unpack::content::StreamContent;

/// Highest number of a sector. Higher values have special meanings.
const MAX_SECTOR: u32 = 0xffff_fffa;

/// Value that ends a chain of sectors.
const END_OF_CHAIN: u32 = 0xffff_fffe;

/// Number of allocation table sectors that the header lists.
const HEADER_TABLE_SECTORS: usize = 109;

/// Size of a directory entry, bytes.
const ENTRY: usize = 128;

/// Size of a sector of the mini stream, bytes.
const MINI_SECTOR: usize = 64;

/// Minimum size of streams outside the mini stream, bytes ([MS-CFB] 2.2).
const CUTOFF: u32 = 4096;

/// Maximum number of storages in the path of a stream. Outer ones are omitted, so that a chain of storages does not
/// cost quadratic time.
const MAX_STORAGES: usize = 8;

/// Maximum length of a storage's or stream's name, bytes ([MS-CFB] 2.6.1).
const MAX_NAME_BYTES: usize = 64;

/// Entry of the directory.
#[derive(Clone, Copy)]
struct CompoundEntry<'a>(&'a [u8; ENTRY]);

impl CompoundEntry<'_> {
    const UNUSED: u8 = 0;
    const STORAGE: u8 = 1;
    const ROOT: u8 = 5;

    fn kind(self) -> u8 {
        self.0.get(66).copied().unwrap_or_default()
    }

    fn is_stream(self) -> bool {
        !matches!(self.kind(), Self::UNUSED | Self::STORAGE | Self::ROOT)
    }

    fn name(self) -> String {
        let length = usize::from(u16_at(self.0, 64)).min(MAX_NAME_BYTES);
        let bytes = self.0.get(..length).unwrap_or_default();
        let units = bytes.chunks_exact(2).map(|pair| u16_at(pair, 0)).take_while(|unit| *unit != 0);
        char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    }

    /// Returns the entries beside and below this one in the tree of names.
    fn links(self) -> Links {
        Links { siblings: [u32_at(self.0, 68), u32_at(self.0, 72)], child: u32_at(self.0, 76) }
    }
}

struct Links {
    siblings: [u32; 2],
    child: u32,
}

/// A compound file.
pub(super) struct Compound<'a> {
    file: &'a [u8],
    /// Size of a sector, bytes.
    sector_size: usize,
    /// Sectors of the allocation table.
    table: Vec<u32>,
    /// Sectors of the allocation table of the mini stream.
    mini_table: StreamContent<'a>,
    mini_stream: StreamContent<'a>,
    cutoff: u32,
    entries: Vec<CompoundEntry<'a>>,
    /// The storage of each entry; `None` for entries that the tree of names does not contain.
    parents: Vec<Option<usize>>,
    is_damaged: bool,
}

/// Index of the root entry.
pub(super) const ROOT: usize = 0;

impl<'a> Compound<'a> {
    /// Reads the directory; `None` if there is none.
    pub(super) fn new(file: &'a [u8]) -> Option<Self> {
        let header = file.get(..512)?;
        // Version 4 has sectors of 4096 bytes.
        let sector_size = match (u16_at(header, 30), u16_at(header, 26)) {
            (12, _) => 4096,
            (9, _) | (_, 0..=3) => 512,
            _ => 4096,
        };
        let mut compound = Self {
            file,
            sector_size,
            table: Vec::new(),
            mini_table: StreamContent::new(file),
            mini_stream: StreamContent::new(file),
            cutoff: u32_at(header, 56),
            entries: Vec::new(),
            parents: Vec::new(),
            is_damaged: false,
        };
        compound.read_table(header);
        compound.read_directory(u32_at(header, 48));
        compound.mini_table = compound.chain(u32_at(header, 60), usize::MAX).0;
        let root = compound.entries.iter().find(|entry| entry.kind() == CompoundEntry::ROOT)?;
        compound.mini_stream = compound.chain(u32_at(root.0, 116), usize::MAX).0;
        compound.read_tree();
        Some(compound)
    }

    /// Returns whether the chain of the directory is broken.
    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Returns the indexes of the streams.
    pub(super) fn streams(&self) -> impl Iterator<Item = usize> {
        self.entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.is_stream())
            .map(|(index, _)| index)
    }

    /// Returns the storage of an entry.
    pub(super) fn parent(&self, index: usize) -> Option<usize> {
        self.parents.get(index).copied().flatten()
    }

    pub(super) fn name(&self, index: usize) -> String {
        self.entries.get(index).map(|entry| entry.name()).unwrap_or_default()
    }

    /// Returns the names of the storages around a stream and of the stream, separated by slashes.
    pub(super) fn path(&self, index: usize) -> String {
        let parents = iter::successors(self.parent(index), |index| self.parent(*index));
        let storages = parents.take_while(|index| *index != ROOT).take(MAX_STORAGES);
        let mut names: Vec<_> =
            iter::once(index).chain(storages).map(|index| for_display(&self.name(index))).collect();
        names.reverse();
        names.join("/")
    }

    /// Returns the content of a stream, and whether all of it is in the file. If the header has an invalid minimum size
    /// of streams outside the mini stream, programs differ, and there may be two contents.
    pub(super) fn contents(&self, index: usize) -> impl Iterator<Item = (StreamContent<'a>, bool)> {
        self.starts(index, usize::MAX)
    }

    /// Returns at most `max_length` bytes of the content or contents of a stream, and whether they are complete.
    pub(super) fn starts(
        &self,
        index: usize,
        max_length: usize,
    ) -> impl Iterator<Item = (StreamContent<'a>, bool)> {
        let entry = self.entries.get(index).copied();
        let size = entry.map_or(0, |entry| self.size(entry));
        let first = entry.map_or(END_OF_CHAIN, |entry| u32_at(entry.0, 116));
        let is_mini = |cutoff: u32| size < cutoff as usize;
        let standard = is_mini(CUTOFF);
        let other = Some(is_mini(self.cutoff)).filter(|other| *other != standard);
        let length = size.min(max_length);
        iter::once(standard).chain(other).filter(move |_| length > 0).map(move |is_mini| {
            if is_mini { self.mini_chain(first, length) } else { self.chain(first, length) }
        })
    }

    fn size(&self, entry: CompoundEntry<'_>) -> usize {
        let (low, high) = (u32_at(entry.0, 120), u32_at(entry.0, 124));
        // The upper half of the field is undefined in files of version 3.
        let high = if self.sector_size == 512 { 0 } else { high };
        usize::try_from(u64::from(high) << 32 | u64::from(low)).unwrap_or(usize::MAX)
    }

    /// Number of sectors of the file, the last one may be incomplete. Limits the length of chains.
    fn sector_count(&self) -> usize {
        self.file.len() / self.sector_size + 1
    }

    fn offset(&self, sector: u32) -> usize {
        (sector as usize).saturating_add(1).saturating_mul(self.sector_size)
    }

    /// Reads the numbers of the allocation table's sectors from the header, and from a chain of sectors whose last
    /// numbers are the next sectors of the list.
    fn read_table(&mut self, header: &[u8]) {
        let numbers = header.get(76..).unwrap_or_default().chunks_exact(4);
        self.table.extend(numbers.take(HEADER_TABLE_SECTORS).map(|number| u32_at(number, 0)));
        let per_sector = self.sector_size / 4 - 1;
        let mut list = u32_at(header, 68);
        for _ in 0..=self.sector_count() / per_sector {
            let start = self.offset(list);
            let Some(sector) = self.file.get(start..start.saturating_add(self.sector_size)) else {
                break;
            };
            self.table
                .extend(sector.chunks_exact(4).take(per_sector).map(|number| u32_at(number, 0)));
            list = u32_at(sector, 4 * per_sector);
        }
    }

    /// Returns the sector after this one in its chain, or a special value; `None` if the table has no entry.
    fn next(&self, sector: u32) -> Option<u32> {
        let per_sector = self.sector_size / 4;
        let table_sector = *self.table.get(sector as usize / per_sector)?;
        let start = self.offset(table_sector).checked_add(4 * (sector as usize % per_sector))?;
        let number = self.file.get(start..start.checked_add(4)?)?;
        Some(u32_at(number, 0))
    }

    /// Returns the content of a chain of sectors, and whether it has `size` bytes.
    fn chain(&self, first: u32, size: usize) -> (StreamContent<'a>, bool) {
        let mut content = StreamContent::new(self.file);
        let mut sector = first;
        for _ in 0..self.sector_count() {
            let missing = size.saturating_sub(content.len());
            if missing == 0 || sector > MAX_SECTOR {
                break;
            }
            let length = missing.min(self.sector_size);
            if content.push(self.offset(sector), length) < length {
                break;
            }
            sector = self.next(sector).unwrap_or(END_OF_CHAIN);
        }
        let is_complete = content.len() == size;
        (content, is_complete)
    }

    /// Like [`Self::chain`], in the mini stream.
    fn mini_chain(&self, first: u32, size: usize) -> (StreamContent<'a>, bool) {
        let mut content = StreamContent::new(self.file);
        let mut sector = first;
        for _ in 0..=size.min(self.file.len()) / MINI_SECTOR {
            let length = (size - content.len()).min(MINI_SECTOR);
            if length == 0 || sector > MAX_SECTOR {
                break;
            }
            let start = (sector as usize).saturating_mul(MINI_SECTOR);
            if content.append(&self.mini_stream, start, length) < length {
                break;
            }
            let next = self.mini_table.copy((sector as usize).saturating_mul(4), 4);
            sector = if next.len() == 4 { u32_at(&next, 0) } else { END_OF_CHAIN };
        }
        let is_complete = content.len() == size;
        (content, is_complete)
    }

    fn read_directory(&mut self, first: u32) {
        let mut sector = first;
        let mut seen = HashSet::new();
        while sector <= MAX_SECTOR && seen.insert(sector) {
            let start = self.offset(sector).min(self.file.len());
            let end = start.saturating_add(self.sector_size).min(self.file.len());
            let (entries, _) = self.file.get(start..end).unwrap_or_default().as_chunks();
            self.entries.extend(entries.iter().map(CompoundEntry));
            if end - start < self.sector_size {
                break;
            }
            sector = self.next(sector).unwrap_or(MAX_SECTOR);
        }
        self.is_damaged = sector != END_OF_CHAIN;
    }

    /// Sets the storages of the entries that are in the tree of names.
    fn read_tree(&mut self) {
        self.parents = vec![None; self.entries.len()];
        let mut pending = vec![(ROOT, self.links(ROOT).child)];
        while let Some((parent, index)) = pending.pop() {
            let index = index as usize;
            if index == ROOT || self.parents.get(index).is_none_or(Option::is_some) {
                continue;
            }
            if let Some(entry) = self.parents.get_mut(index) {
                *entry = Some(parent);
            }
            let Links { siblings, child } = self.links(index);
            pending.extend(siblings.map(|sibling| (parent, sibling)));
            pending.push((index, child));
        }
    }

    fn links(&self, index: usize) -> Links {
        let none = Links { siblings: [u32::MAX; 2], child: u32::MAX };
        self.entries.get(index).map_or(none, |entry| entry.links())
    }
}

/// Returns the name of a storage or stream for reports: characters that Windows Installer encodes are decoded, control
/// characters are numbers in brackets.
fn for_display(name: &str) -> String {
    const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._";
    let digit =
        |value: u32| DIGITS.get(value as usize % 64).map_or('_', |digit| char::from(*digit));
    let mut text = String::new();
    for character in name.chars() {
        match u32::from(character) {
            control @ 0..32 => text.extend(["[", &control.to_string(), "]"]),
            // Two digits of six bits, the lower one first.
            pair @ 0x3800..0x4800 => {
                text.extend([digit(pair - 0x3800), digit((pair - 0x3800) >> 6)]);
            }
            single @ 0x4800..0x4840 => text.push(digit(single - 0x4800)),
            // Marks the stream of a table.
            0x4840 => text.push('!'),
            _ => text.push(character),
        }
    }
    text
}

/// Returns the number at an offset; 0 if the bytes end before.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    let number = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    number.map_or(0, |number| u16::from_le_bytes(*number))
}

/// Returns the number at an offset; 0 if the bytes end before.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let number = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    number.map_or(0, |number| u32::from_le_bytes(*number))
}

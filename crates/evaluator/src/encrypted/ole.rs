//! OLE containers ([MS-CFB]): the names of streams in the directory, and the first bytes of streams of the binary
//! Office formats ([MS-DOC] 2.5.2, [MS-XLS] 2.4.117, [MS-PPT] 2.3.2).

use super::{
    encryption::Encryption,
    reader::{BoundedReader, ReadAt, Stop, u16_at, u32_at},
};

pub(super) const SIGNATURE: [u8; 8] = [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];

/// Highest sector number. Higher values have special meanings.
const MAX_SECTOR: u32 = 0xffff_fffa;

/// Number of allocation table sectors that the header lists.
const HEADER_TABLE_SECTORS: usize = 109;

const ENTRY: usize = 128;
const MINI_SECTOR: u64 = 64;

/// Number of bytes of a workbook that are examined. `FilePass` is one of the first records, but records of up to 8 KiB
/// may precede it.
const WORKBOOK_START: usize = 64 * 1024;

/// Number of bytes of other streams that are examined.
const STREAM_START: usize = 64;

/// Returns the encrypted contents of the container.
pub(super) fn examine<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
) -> Result<Option<Encryption>, Stop> {
    let Some(mut container) = Container::new(reader)? else { return Ok(None) };
    let mut directory = container.chain(container.directory);
    while let Some(sector) = directory.next(&mut container)? {
        let start = container.offset(sector);
        for offset in (start..start + container.sector_size).step_by(ENTRY) {
            let Some(bytes) = container.reader.ahead(offset, ENTRY)? else { break };
            let Some(entry) = DirectoryEntry::parse(bytes) else { continue };
            let encryption = match entry.name.as_str() {
                _ if entry.kind == DirectoryEntry::ROOT => {
                    container.read_mini_stream(entry.first_sector)?;
                    None
                }
                "ENCRYPTEDPACKAGE" | "ENCRYPTIONINFO" => Some(Encryption::OlePackage),
                "\tDRMCONTENT" => Some(Encryption::OleRights),
                name => container.binary_format(name, &entry)?,
            };
            if encryption.is_some() {
                return Ok(encryption);
            }
        }
    }
    Ok(None)
}

#[derive(Clone, Copy)]
enum BinaryFormat {
    Word,
    Excel,
    PowerPoint,
}

impl BinaryFormat {
    fn from_stream_name(name: &str) -> Option<Self> {
        match name {
            "WORDDOCUMENT" => Some(Self::Word),
            "WORKBOOK" | "BOOK" => Some(Self::Excel),
            "CURRENT USER" => Some(Self::PowerPoint),
            _ => None,
        }
    }

    fn encryption(self) -> Encryption {
        match self {
            Self::Word => Encryption::Word,
            Self::Excel => Encryption::Excel,
            Self::PowerPoint => Encryption::PowerPoint,
        }
    }

    /// Returns the number of bytes from the start of the stream that are examined.
    fn examined_length(self) -> usize {
        match self {
            Self::Excel => WORKBOOK_START,
            Self::Word | Self::PowerPoint => STREAM_START,
        }
    }

    /// Returns whether a document is encrypted. `bytes` are from the start of the stream.
    fn is_encrypted(self, bytes: &[u8]) -> bool {
        match self {
            // wIdent and fEncrypted of FibBase.
            Self::Word => {
                matches!(u16_at(bytes, 0), 0xa5dc | 0xa5ec) && u16_at(bytes, 10) & 0x100 != 0
            }
            Self::PowerPoint => u32_at(bytes, 12) == 0xf3d1_c4df,
            Self::Excel => has_file_pass(bytes),
        }
    }
}

/// Returns whether a `FilePass` record is among the records of a workbook, up to the first sheet.
fn has_file_pass(bytes: &[u8]) -> bool {
    const EOF: u16 = 0x0a;
    const FILE_PASS: u16 = 0x2f;
    const BOUND_SHEET: u16 = 0x85;
    const HEADER: usize = 4;
    // BOF of any BIFF version.
    if !matches!(u16_at(bytes, 0), 0x0009 | 0x0209 | 0x0409 | 0x0809) {
        return false;
    }
    let mut offset = HEADER + usize::from(u16_at(bytes, 2));
    while offset < bytes.len() {
        match u16_at(bytes, offset) {
            FILE_PASS => return true,
            BOUND_SHEET | EOF => return false,
            _ => offset += HEADER + usize::from(u16_at(bytes, offset + 2)),
        }
    }
    false
}

/// A directory entry of a stream or of the root.
struct DirectoryEntry {
    /// In upper case, because names are compared without case.
    name: String,
    kind: u8,
    first_sector: u32,
    size: u32,
}

impl DirectoryEntry {
    const STREAM: u8 = 2;
    const ROOT: u8 = 5;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let length = usize::from(u16_at(bytes, 64)).min(64);
        let name = bytes.get(..length)?;
        let units = name.chunks_exact(2).map(|pair| u16_at(pair, 0)).take_while(|unit| *unit != 0);
        let name =
            char::decode_utf16(units).map(|result| result.unwrap_or(char::REPLACEMENT_CHARACTER));
        let name = name.collect::<String>().to_ascii_uppercase();
        let kind = *bytes.get(66)?;
        let is_used = matches!(kind, Self::STREAM | Self::ROOT);
        // The upper half of the size field is undefined in containers of version 3.
        let (first_sector, size) = (u32_at(bytes, 116), u32_at(bytes, 120));
        is_used.then_some(Self { name, kind, first_sector, size })
    }
}

struct Container<'r, 's, S: ?Sized> {
    reader: &'r mut BoundedReader<'s, S>,
    /// Size of a sector, bytes.
    sector_size: u64,
    /// Sectors of the allocation table.
    table: Vec<u32>,
    /// First sector of the directory.
    directory: u32,
    /// First sector of the allocation table of the mini stream.
    mini_table: u32,
    /// Sectors of the mini stream.
    mini_stream: Vec<u32>,
    /// Minimum size of a stream outside the mini stream, bytes.
    cutoff: u32,
    /// Number of sectors of the file, which limits the length of a chain.
    sector_count: u64,
}

impl<'r, 's, S: ReadAt + ?Sized> Container<'r, 's, S> {
    fn new(reader: &'r mut BoundedReader<'s, S>) -> Result<Option<Self>, Stop> {
        let Some(header) = reader.exact::<512>(0)? else { return Ok(None) };
        let shift = u16_at(&header, 30);
        if !(7..=16).contains(&shift) {
            return Ok(None);
        }
        let sector_count = (reader.length >> shift) + 1;
        // Unused entries are kept, because the index of an entry matters.
        let table =
            (0..HEADER_TABLE_SECTORS).map(|index| u32_at(&header, 76 + 4 * index)).collect();
        let mut container = Self {
            reader,
            sector_size: 1 << shift,
            table,
            directory: u32_at(&header, 48),
            mini_table: u32_at(&header, 60),
            mini_stream: Vec::new(),
            cutoff: u32_at(&header, 56),
            sector_count,
        };
        container.read_table(u32_at(&header, 68))?;
        Ok(Some(container))
    }

    /// Reads the list of allocation table sectors that do not fit into the header. The list is a chain of sectors;
    /// the last number in a sector is the next sector of the list.
    fn read_table(&mut self, mut list: u32) -> Result<(), Stop> {
        let per_sector = self.sector_size / 4 - 1;
        let max_length = self.sector_count / per_sector + 1;
        for _ in 0..max_length {
            if list > MAX_SECTOR {
                break;
            }
            let start = self.offset(list);
            for index in 0..per_sector {
                match self.number(start + 4 * index)? {
                    Some(sector) => self.table.push(sector),
                    None => break,
                }
            }
            list = self.number(start + 4 * per_sector)?.unwrap_or(u32::MAX);
        }
        Ok(())
    }

    fn number(&mut self, offset: u64) -> Result<Option<u32>, Stop> {
        Ok(self.reader.ahead(offset, 4)?.map(|bytes| u32_at(bytes, 0)))
    }

    fn offset(&self, sector: u32) -> u64 {
        (u64::from(sector) + 1) * self.sector_size
    }

    /// Returns the sector that follows this one in its chain.
    fn next(&mut self, sector: u32) -> Result<Option<u32>, Stop> {
        let position = u64::from(sector) * 4;
        let index = usize::try_from(position / self.sector_size).ok();
        let table_sector = index.and_then(|index| self.table.get(index));
        let Some(table_sector) = table_sector.copied() else { return Ok(None) };
        let offset = self.offset(table_sector) + position % self.sector_size;
        // Without read-ahead, which would alternate between the directory and the table.
        let next = self.reader.exact::<4>(offset)?.map(u32::from_le_bytes);
        Ok(next.filter(|sector| *sector <= MAX_SECTOR))
    }

    fn chain(&self, first: u32) -> SectorChain {
        let next = Some(first).filter(|sector| *sector <= MAX_SECTOR);
        SectorChain { next, remaining: self.sector_count }
    }

    /// Reads the sector numbers of the mini stream, whose first sector the root entry contains.
    fn read_mini_stream(&mut self, first: u32) -> Result<(), Stop> {
        if self.mini_stream.is_empty() {
            let mut chain = self.chain(first);
            while let Some(sector) = chain.next(self)? {
                self.mini_stream.push(sector);
            }
        }
        Ok(())
    }

    /// Returns the kind of an encrypted document in a binary format, by one of its streams.
    fn binary_format(
        &mut self,
        name: &str,
        entry: &DirectoryEntry,
    ) -> Result<Option<Encryption>, Stop> {
        let Some(format) = BinaryFormat::from_stream_name(name) else { return Ok(None) };
        let bytes = self.read_start(entry, format.examined_length())?;
        Ok(format.is_encrypted(&bytes).then(|| format.encryption()))
    }

    /// Reads the first bytes of a stream, at most `length`. Returns fewer if the chain of sectors ends before.
    fn read_start(&mut self, entry: &DirectoryEntry, length: usize) -> Result<Vec<u8>, Stop> {
        let size = usize::try_from(entry.size).unwrap_or(usize::MAX).min(length);
        let is_mini = entry.size < self.cutoff;
        let mut bytes = Vec::new();
        let mut sector = Some(entry.first_sector).filter(|sector| *sector <= MAX_SECTOR);
        while let Some(current) = sector.filter(|_| bytes.len() < size) {
            let (offset, sector_size) = if is_mini {
                let Some(offset) = self.mini_offset(current) else { break };
                (offset, MINI_SECTOR)
            } else {
                (self.offset(current), self.sector_size)
            };
            let start = bytes.len();
            let sector_size = usize::try_from(sector_size).unwrap_or(usize::MAX);
            bytes.resize(start.saturating_add(sector_size).min(size), 0);
            let filled = self.reader.fill(bytes.get_mut(start..).unwrap_or_default(), offset)?;
            bytes.truncate(start + filled);
            if filled == 0 {
                break;
            }
            sector = match bytes.len() < size {
                true if is_mini => self.next_mini(current)?,
                true => self.next(current)?,
                false => None,
            };
        }
        Ok(bytes)
    }

    /// Returns the offset of a sector of the mini stream in the file.
    fn mini_offset(&self, sector: u32) -> Option<u64> {
        let position = u64::from(sector) * MINI_SECTOR;
        let index = usize::try_from(position / self.sector_size).ok();
        let container_sector = index.and_then(|index| self.mini_stream.get(index))?;
        Some(self.offset(*container_sector) + position % self.sector_size)
    }

    /// Like [`Self::next`], for the mini stream.
    fn next_mini(&mut self, sector: u32) -> Result<Option<u32>, Stop> {
        let position = u64::from(sector) * 4;
        let mut chain = self.chain(self.mini_table);
        for _ in 0..position / self.sector_size {
            chain.next(self)?;
        }
        let Some(table_sector) = chain.next(self)? else { return Ok(None) };
        let offset = self.offset(table_sector) + position % self.sector_size;
        let next = self.reader.exact::<4>(offset)?.map(u32::from_le_bytes);
        Ok(next.filter(|sector| *sector <= MAX_SECTOR))
    }
}

/// Position in a chain of sectors.
struct SectorChain {
    next: Option<u32>,
    /// Number of sectors that may follow.
    remaining: u64,
}

impl SectorChain {
    fn next<S: ReadAt + ?Sized>(
        &mut self,
        container: &mut Container<'_, '_, S>,
    ) -> Result<Option<u32>, Stop> {
        let Some(sector) = self.next.filter(|_| self.remaining > 0) else { return Ok(None) };
        self.remaining -= 1;
        self.next = container.next(sector)?;
        Ok(Some(sector))
    }
}

//! OLE containers ([MS-CFB]): the names of the streams in the directory, and for the binary formats of Office what
//! the first bytes of a stream say ([MS-DOC] 2.5.2, [MS-XLS] 2.4.117, [MS-PPT] 2.3.2).

use super::{
    Encryption, ReadAt,
    reader::{Reader, Stop, u16_at, u32_at},
};

pub(super) const SIGNATURE: [u8; 8] = [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];

/// The greatest number of a sector; greater ones have other meanings.
const MAX_SECTOR: u32 = 0xffff_fffa;

/// Sectors of the allocation table that are listed in the header.
const IN_HEADER: usize = 109;

const ENTRY: usize = 128;
const MINI_SECTOR: u64 = 64;

/// Bytes of a stream that are looked at: the first records of a workbook.
const BEGINNING: usize = 64;

/// Returns what is encrypted in the container.
pub(super) fn examine<S: ReadAt + ?Sized>(
    reader: &mut Reader<'_, S>,
) -> Result<Option<Encryption>, Stop> {
    let Some(mut container) = Container::new(reader)? else { return Ok(None) };
    let mut directory = container.chain(container.directory);
    while let Some(sector) = directory.next(&mut container)? {
        let from = container.offset(sector);
        for at in (from..from + container.sector).step_by(ENTRY) {
            let Some(bytes) = container.reader.ahead(at, ENTRY)? else { break };
            let Some(entry) = Entry::parse(bytes) else { continue };
            let found = match entry.name.as_str() {
                _ if entry.kind == Entry::ROOT => {
                    container.read_mini_stream(entry.first)?;
                    None
                }
                "ENCRYPTEDPACKAGE" | "ENCRYPTIONINFO" => Some(Encryption::OlePackage),
                "\tDRMCONTENT" => Some(Encryption::OleRights),
                name => container.binary_format(name, &entry)?,
            };
            if found.is_some() {
                return Ok(found);
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
    fn of_stream(name: &str) -> Option<Self> {
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

    /// By the first [`BEGINNING`] bytes of the stream, or fewer.
    fn is_encrypted(self, bytes: &[u8]) -> bool {
        match self {
            // FibBase: wIdent, and fEncrypted.
            Self::Word => {
                matches!(u16_at(bytes, 0), 0xa5dc | 0xa5ec) && u16_at(bytes, 10) & 0x100 != 0
            }
            Self::PowerPoint => u32_at(bytes, 12) == 0xf3d1_c4df,
            Self::Excel => {
                // BOF of BIFF 5 or 8, or an older one; then WriteProtect at most; then FilePass.
                let mut at = match u16_at(bytes, 0) {
                    0x0009 | 0x0209 | 0x0409 | 0x0809 => 4 + usize::from(u16_at(bytes, 2)),
                    _ => return false,
                };
                for _ in 0..4 {
                    if u16_at(bytes, at) == 0x2f {
                        return true;
                    }
                    at += 4 + usize::from(u16_at(bytes, at + 2));
                }
                false
            }
        }
    }
}

/// A stream or the root of the directory.
struct Entry {
    /// In upper case, as names are compared.
    name: String,
    kind: u8,
    first: u32,
    size: u32,
}

impl Entry {
    const STREAM: u8 = 2;
    const ROOT: u8 = 5;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let length = usize::from(u16_at(bytes, 64)).min(64);
        let name = bytes.get(..length)?;
        let units = name.chunks_exact(2).map(|pair| u16_at(pair, 0)).take_while(|it| *it != 0);
        let name = char::decode_utf16(units).map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER));
        let name = name.collect::<String>().to_ascii_uppercase();
        let kind = *bytes.get(66)?;
        let is_used = matches!(kind, Self::STREAM | Self::ROOT);
        // The upper half of the size is no size in containers of version 3.
        is_used.then(|| Self { name, kind, first: u32_at(bytes, 116), size: u32_at(bytes, 120) })
    }
}

struct Container<'r, 's, S: ?Sized> {
    reader: &'r mut Reader<'s, S>,
    /// Bytes of a sector.
    sector: u64,
    /// Sectors of the allocation table.
    table: Vec<u32>,
    directory: u32,
    /// Sectors of the mini stream.
    mini: Vec<u32>,
    /// Smaller streams are in the mini stream.
    cutoff: u32,
    /// No chain is longer than all sectors of the file.
    sectors: u64,
}

impl<'r, 's, S: ReadAt + ?Sized> Container<'r, 's, S> {
    fn new(reader: &'r mut Reader<'s, S>) -> Result<Option<Self>, Stop> {
        let Some(header) = reader.exact::<512>(0)? else { return Ok(None) };
        let shift = u16_at(&header, 30);
        if !(7..=16).contains(&shift) {
            return Ok(None);
        }
        let sectors = (reader.length >> shift) + 1;
        // Places that are not used stay, since the others count by their number.
        let table = (0..IN_HEADER).map(|at| u32_at(&header, 76 + 4 * at)).collect();
        let mut container = Self {
            reader,
            sector: 1 << shift,
            table,
            directory: u32_at(&header, 48),
            mini: Vec::new(),
            cutoff: u32_at(&header, 56),
            sectors,
        };
        container.read_table(u32_at(&header, 68))?;
        Ok(Some(container))
    }

    /// Reads the numbers of the table's sectors that do not fit into the header: a list of sectors whose last
    /// number is the next sector of the list.
    fn read_table(&mut self, mut list: u32) -> Result<(), Stop> {
        let each = self.sector / 4 - 1;
        let most = self.sectors / each + 1;
        for _ in 0..most {
            if list > MAX_SECTOR {
                break;
            }
            let from = self.offset(list);
            for place in 0..each {
                match self.number(from + 4 * place)? {
                    Some(sector) => self.table.push(sector),
                    None => break,
                }
            }
            list = self.number(from + 4 * each)?.unwrap_or(u32::MAX);
        }
        Ok(())
    }

    fn number(&mut self, at: u64) -> Result<Option<u32>, Stop> {
        Ok(self.reader.ahead(at, 4)?.map(|it| u32_at(it, 0)))
    }

    fn offset(&self, sector: u32) -> u64 {
        (u64::from(sector) + 1) * self.sector
    }

    /// The sector that follows this one in its chain.
    fn next(&mut self, sector: u32) -> Result<Option<u32>, Stop> {
        let at = u64::from(sector) * 4;
        let place = usize::try_from(at / self.sector).ok().and_then(|it| self.table.get(it));
        let Some(place) = place.copied() else { return Ok(None) };
        let at = self.offset(place) + at % self.sector;
        // Not ahead: the directory is read beside the table.
        let next = self.reader.exact::<4>(at)?.map(u32::from_le_bytes);
        Ok(next.filter(|it| *it <= MAX_SECTOR))
    }

    fn chain(&self, first: u32) -> Chain {
        Chain { next: Some(first).filter(|it| *it <= MAX_SECTOR), left: self.sectors }
    }

    /// Reads the chain of the mini stream, which begins in the first entry of the directory.
    fn read_mini_stream(&mut self, first: u32) -> Result<(), Stop> {
        if self.mini.is_empty() {
            let mut chain = self.chain(first);
            while let Some(sector) = chain.next(self)? {
                self.mini.push(sector);
            }
        }
        Ok(())
    }

    /// Returns the format of an encrypted document, by one of its streams.
    fn binary_format(&mut self, name: &str, entry: &Entry) -> Result<Option<Encryption>, Stop> {
        let Some(format) = BinaryFormat::of_stream(name) else { return Ok(None) };
        let bytes = self.beginning(entry)?;
        let encrypted = bytes.is_some_and(|bytes| format.is_encrypted(&bytes));
        Ok(encrypted.then(|| format.encryption()))
    }

    /// Returns the first bytes of a stream, all of which are in its first sector.
    fn beginning(&mut self, entry: &Entry) -> Result<Option<Vec<u8>>, Stop> {
        let at = if entry.size < self.cutoff {
            let place = u64::from(entry.first) * MINI_SECTOR;
            let sector = usize::try_from(place / self.sector).ok().and_then(|it| self.mini.get(it));
            let Some(sector) = sector else { return Ok(None) };
            self.offset(*sector) + place % self.sector
        } else {
            self.offset(entry.first)
        };
        let size = usize::try_from(entry.size).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size.min(BEGINNING)];
        let filled = self.reader.fill(&mut bytes, at)?;
        bytes.truncate(filled);
        Ok(Some(bytes))
    }
}

/// Position in a chain of sectors.
struct Chain {
    next: Option<u32>,
    left: u64,
}

impl Chain {
    fn next<S: ReadAt + ?Sized>(
        &mut self,
        container: &mut Container<'_, '_, S>,
    ) -> Result<Option<u32>, Stop> {
        let Some(sector) = self.next.filter(|_| self.left > 0) else { return Ok(None) };
        self.left -= 1;
        self.next = container.next(sector)?;
        Ok(Some(sector))
    }
}

//! 7z, 7zFormat.txt of the LZMA SDK. The header lists the coders of all folders. The coders of a compressed or
//! encrypted header are listed in front of it.
//!
//! Properties are read in the order that 7-Zip accepts, and unknown ones are skipped as 7-Zip skips them. An archive
//! whose header cannot be followed counts as encrypted.

use super::{
    encryption::Encryption,
    reader::{BoundedReader, ReadAt, Stop, crc32, u32_at, u64_at},
};

const START_HEADER: usize = 32;

mod id {
    pub(super) const END: u64 = 0x00;
    pub(super) const HEADER: u64 = 0x01;
    pub(super) const ARCHIVE_PROPERTIES: u64 = 0x02;
    pub(super) const MAIN_STREAMS: u64 = 0x04;
    pub(super) const FILES: u64 = 0x05;
    pub(super) const PACK_INFO: u64 = 0x06;
    pub(super) const UNPACK_INFO: u64 = 0x07;
    pub(super) const SIZE: u64 = 0x09;
    pub(super) const CRC: u64 = 0x0a;
    pub(super) const FOLDER: u64 = 0x0b;
    pub(super) const ENCODED_HEADER: u64 = 0x17;
}

/// Returns whether the archive at `offset` has a folder or a header with an AES coder, or a header that cannot be
/// followed.
///
/// 7-Zip accepts a signature at the start of the file, and elsewhere one whose start header has a valid checksum or
/// is all zero. In the latter case 7-Zip searches for the header near the end of the file.
pub(super) fn examine<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    offset: u64,
) -> Result<Option<Encryption>, Stop> {
    let Some(start_header) = reader.exact::<START_HEADER>(offset)? else { return Ok(None) };
    let base = offset + START_HEADER as u64;
    if reader.length <= base {
        // An archive without entries.
        return Ok(None);
    }
    let fields = start_header.get(8..).unwrap_or_default();
    let is_zero = fields.iter().all(|byte| *byte == 0);
    let has_version = start_header.get(6..8) != Some(&[0; 2]);
    if crc32(start_header.get(12..).unwrap_or_default()) != u32_at(&start_header, 8) {
        let is_archive = offset == 0 || (is_zero && has_version);
        return Ok(is_archive.then_some(Encryption::Unreadable));
    }
    let (header_offset, size) = (u64_at(&start_header, 12), u64_at(&start_header, 20));
    if size == 0 {
        // An archive without entries, after which only unrelated data may follow.
        return Ok((offset == 0).then_some(Encryption::Unreadable));
    }
    let start = base.checked_add(header_offset);
    let end = start.and_then(|start| start.checked_add(size)).filter(|end| *end <= reader.length);
    let (Some(start), Some(end)) = (start, end) else { return Ok(Some(Encryption::Unreadable)) };
    let mut header = HeaderParser { reader, offset: start, end };
    Ok(match header.is_encrypted()? {
        Some(is_encrypted) => is_encrypted.then_some(Encryption::SevenZip),
        None => Some(Encryption::Unreadable),
    })
}

/// Position in a header. Methods return none if the data does not follow the format.
struct HeaderParser<'r, 's, S: ?Sized> {
    reader: &'r mut BoundedReader<'s, S>,
    offset: u64,
    end: u64,
}

type Parsed<T> = Result<Option<T>, Stop>;

/// `?` for a value that may be absent.
macro_rules! some {
    ($parsed:expr) => {
        match $parsed? {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

impl<S: ReadAt + ?Sized> HeaderParser<'_, '_, S> {
    fn is_encrypted(&mut self) -> Parsed<bool> {
        match some!(self.number()) {
            id::ENCODED_HEADER => self.streams_are_encrypted(),
            id::HEADER => {
                let mut property = some!(self.number());
                if property == id::ARCHIVE_PROPERTIES {
                    some!(self.skip_to_end());
                    property = some!(self.number());
                }
                match property {
                    id::MAIN_STREAMS => self.streams_are_encrypted(),
                    // Entries without contents.
                    id::FILES | id::END => Ok(Some(false)),
                    // Among others, additional streams, which no known program writes.
                    _ => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    /// Reads up to the end of the folders.
    fn streams_are_encrypted(&mut self) -> Parsed<bool> {
        loop {
            match some!(self.number()) {
                id::PACK_INFO => some!(self.skip_pack_info()),
                id::UNPACK_INFO => return self.folders_are_encrypted(),
                id::END => return Ok(Some(false)),
                _ => return Ok(None),
            }
        }
    }

    /// Skips a property: its size, and as many bytes.
    fn skip_data(&mut self) -> Parsed<()> {
        let size = some!(self.number());
        Ok(self.skip(size))
    }

    /// Skips properties up to the end mark.
    fn skip_to_end(&mut self) -> Parsed<()> {
        while some!(self.number()) != id::END {
            some!(self.skip_data());
        }
        Ok(Some(()))
    }

    /// Skips properties before the required one.
    fn skip_to(&mut self, property: u64) -> Parsed<()> {
        loop {
            match some!(self.number()) {
                id::END => return Ok(None),
                found if found == property => return Ok(Some(())),
                _ => some!(self.skip_data()),
            }
        }
    }

    fn skip_pack_info(&mut self) -> Parsed<()> {
        let _position = some!(self.number());
        let streams = some!(self.number());
        some!(self.skip_to(id::SIZE));
        for _ in 0..streams {
            some!(self.number());
        }
        loop {
            match some!(self.number()) {
                id::END => return Ok(Some(())),
                id::CRC => some!(self.skip_digests(streams)),
                _ => some!(self.skip_data()),
            }
        }
    }

    fn skip_digests(&mut self, count: u64) -> Parsed<()> {
        let mut defined = 0;
        if some!(self.byte()) != 0 {
            defined = count;
        } else {
            let mut remaining = count;
            while remaining > 0 {
                let bits = remaining.min(8);
                // The unused bits of the last byte are the least significant.
                let used = some!(self.byte()) >> (8 - bits);
                defined += u64::from(used.count_ones());
                remaining -= bits;
            }
        }
        Ok(self.skip(defined.saturating_mul(4)))
    }

    fn folders_are_encrypted(&mut self) -> Parsed<bool> {
        some!(self.skip_to(id::FOLDER));
        let folders = some!(self.number());
        // Folders in an external stream. No known program writes them.
        if some!(self.byte()) != 0 {
            return Ok(None);
        }
        for _ in 0..folders {
            if some!(self.folder_is_encrypted()) {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }

    fn folder_is_encrypted(&mut self) -> Parsed<bool> {
        /// 7-Zip's limit is smaller.
        const MAX_CODERS: u64 = 64;
        let coders = some!(self.number());
        if !(1..=MAX_CODERS).contains(&coders) {
            return Ok(None);
        }
        let (mut inputs, mut outputs) = (0_u64, 0_u64);
        for _ in 0..coders {
            match some!(self.coder()) {
                Coder::Cipher => return Ok(Some(true)),
                Coder::Other { inputs: more_inputs, outputs: more_outputs } => {
                    inputs = inputs.saturating_add(more_inputs);
                    outputs = outputs.saturating_add(more_outputs);
                }
            }
        }
        let bonds = outputs.saturating_sub(1);
        for _ in 0..bonds.saturating_mul(2) {
            some!(self.number());
        }
        let packed = inputs.saturating_sub(bonds);
        for _ in 0..if packed > 1 { packed } else { 0 } {
            some!(self.number());
        }
        Ok(Some(false))
    }

    fn coder(&mut self) -> Parsed<Coder> {
        const ID_SIZE: u8 = 0x0f;
        const IS_COMPLEX: u8 = 0x10;
        const HAS_PROPERTIES: u8 = 0x20;
        const RESERVED: u8 = 0xc0;
        let flags = some!(self.byte());
        if flags & RESERVED != 0 {
            return Ok(None);
        }
        // 7-Zip reads the method as a big-endian number: leading zeros do not count.
        let mut method = Vec::new();
        for _ in 0..flags & ID_SIZE {
            let byte = some!(self.byte());
            if byte != 0 || !method.is_empty() {
                method.push(byte);
            }
        }
        // Ciphers without and with key derivation, Methods.txt of the SDK. 7zAES is 06 F1 07 01.
        if matches!(method.as_slice(), [0x06, 0xf0 | 0xf1, ..]) {
            return Ok(Some(Coder::Cipher));
        }
        let is_complex = flags & IS_COMPLEX != 0;
        let inputs = if is_complex { some!(self.number()) } else { 1 };
        let outputs = if is_complex { some!(self.number()) } else { 1 };
        if flags & HAS_PROPERTIES != 0 {
            some!(self.skip_data());
        }
        Ok(Some(Coder::Other { inputs, outputs }))
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        let next = self.offset.checked_add(bytes).filter(|next| *next <= self.end);
        self.offset = next.unwrap_or(self.end);
        next.map(drop)
    }

    fn byte(&mut self) -> Parsed<u8> {
        if self.offset >= self.end {
            return Ok(None);
        }
        self.reader.charge_parsing(1)?;
        let byte = self.reader.ahead(self.offset, 1)?.and_then(|bytes| bytes.first().copied());
        self.offset += 1;
        Ok(byte)
    }

    /// Reads a number of variable length. The number of leading ones of the first byte is the number of further
    /// bytes, least significant first. The remaining bits of the first byte are the most significant.
    fn number(&mut self) -> Parsed<u64> {
        let first = some!(self.byte());
        let following = first.leading_ones();
        let mut value = 0;
        for index in 0..following {
            value |= u64::from(some!(self.byte())) << (8 * index);
        }
        if following < 7 {
            let high = first & (0x7f >> following);
            value |= u64::from(high) << (8 * following);
        }
        Ok(Some(value))
    }
}

/// A coder of a folder.
enum Coder {
    Cipher,
    /// Numbers of streams.
    Other {
        inputs: u64,
        outputs: u64,
    },
}

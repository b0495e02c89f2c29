//! 7z, 7zFormat.txt of the LZMA SDK. The header lists the coders of all folders. The coders of a compressed or
//! encrypted header are listed in front of it.

use super::reader::{BoundedReader, ReadAt, Stop, u64_at};

const START_HEADER: usize = 32;

mod id {
    pub(super) const END: u64 = 0x00;
    pub(super) const HEADER: u64 = 0x01;
    pub(super) const ARCHIVE_PROPERTIES: u64 = 0x02;
    pub(super) const ADDITIONAL_STREAMS: u64 = 0x03;
    pub(super) const MAIN_STREAMS: u64 = 0x04;
    pub(super) const PACK_INFO: u64 = 0x06;
    pub(super) const UNPACK_INFO: u64 = 0x07;
    pub(super) const SIZE: u64 = 0x09;
    pub(super) const CRC: u64 = 0x0a;
    pub(super) const FOLDER: u64 = 0x0b;
    pub(super) const CODERS_UNPACK_SIZE: u64 = 0x0c;
    pub(super) const ENCODED_HEADER: u64 = 0x17;
}

/// Returns whether the archive at `offset` has a folder or a header with an AES coder.
pub(super) fn examine<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    offset: u64,
) -> Result<bool, Stop> {
    let Some(start_header) = reader.exact::<START_HEADER>(offset)? else { return Ok(false) };
    let (header_offset, size) = (u64_at(&start_header, 12), u64_at(&start_header, 20));
    let base = offset + START_HEADER as u64;
    let Some(start) = base.checked_add(header_offset) else { return Ok(false) };
    let end = start.saturating_add(size).min(reader.length);
    let mut header = Header { reader, offset: start, end };
    Ok(header.is_encrypted()?.unwrap_or(false))
}

/// Position in a header. Methods return none if the data does not follow the format.
struct Header<'r, 's, S: ?Sized> {
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

impl<S: ReadAt + ?Sized> Header<'_, '_, S> {
    fn is_encrypted(&mut self) -> Parsed<bool> {
        match some!(self.number()) {
            id::ENCODED_HEADER => self.streams_are_encrypted(),
            id::HEADER => loop {
                match some!(self.number()) {
                    id::ARCHIVE_PROPERTIES => some!(self.skip_properties()),
                    id::ADDITIONAL_STREAMS => {
                        if some!(self.streams_are_encrypted()) {
                            return Ok(Some(true));
                        }
                        some!(self.skip_sub_streams());
                    }
                    id::MAIN_STREAMS => return self.streams_are_encrypted(),
                    _ => return Ok(Some(false)),
                }
            },
            _ => Ok(Some(false)),
        }
    }

    /// Reads up to the end of the folders.
    fn streams_are_encrypted(&mut self) -> Parsed<bool> {
        loop {
            match some!(self.number()) {
                id::PACK_INFO => some!(self.skip_pack_info()),
                id::UNPACK_INFO => return self.folders_are_encrypted(),
                _ => return Ok(Some(false)),
            }
        }
    }

    fn skip_properties(&mut self) -> Parsed<()> {
        loop {
            if some!(self.number()) == id::END {
                return Ok(Some(()));
            }
            let size = some!(self.number());
            if self.skip(size).is_none() {
                return Ok(None);
            }
        }
    }

    fn skip_pack_info(&mut self) -> Parsed<()> {
        let _position = some!(self.number());
        let streams = some!(self.number());
        loop {
            match some!(self.number()) {
                id::END => return Ok(Some(())),
                id::SIZE => {
                    for _ in 0..streams {
                        some!(self.number());
                    }
                }
                id::CRC => some!(self.skip_digests(streams)),
                _ => return Ok(None),
            }
        }
    }

    fn skip_digests(&mut self, count: u64) -> Parsed<()> {
        let mut defined = 0;
        if some!(self.byte()) != 0 {
            defined = count;
        } else {
            for _ in 0..count.div_ceil(8) {
                defined += u64::from(some!(self.byte()).count_ones());
            }
        }
        Ok(self.skip(defined.saturating_mul(4)))
    }

    /// Skips the properties after the folders of additional streams. No known program writes such streams.
    fn skip_sub_streams(&mut self) -> Parsed<()> {
        loop {
            match some!(self.number()) {
                id::END => return Ok(Some(())),
                id::CODERS_UNPACK_SIZE | id::CRC => {}
                _ => return Ok(None),
            }
        }
    }

    fn folders_are_encrypted(&mut self) -> Parsed<bool> {
        if some!(self.number()) != id::FOLDER {
            return Ok(None);
        }
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
        const ID_SIZE: u8 = 0x0f;
        const IS_COMPLEX: u8 = 0x10;
        const HAS_PROPERTIES: u8 = 0x20;
        let coders = some!(self.number());
        let (mut inputs, mut outputs) = (0_u64, 0_u64);
        for _ in 0..coders {
            let flags = some!(self.byte());
            let mut method = [0; 2];
            for index in 0..flags & ID_SIZE {
                let byte = some!(self.byte());
                if let Some(target) = method.get_mut(usize::from(index)) {
                    *target = byte;
                }
            }
            // Ciphers without and with key derivation, Methods.txt of the SDK. 7zAES is 06 F1 07 01.
            if matches!(method, [0x06, 0xf0 | 0xf1]) {
                return Ok(Some(true));
            }
            let is_complex = flags & IS_COMPLEX != 0;
            inputs = inputs.saturating_add(if is_complex { some!(self.number()) } else { 1 });
            outputs = outputs.saturating_add(if is_complex { some!(self.number()) } else { 1 });
            if flags & HAS_PROPERTIES != 0 {
                let size = some!(self.number());
                if self.skip(size).is_none() {
                    return Ok(None);
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

    fn skip(&mut self, bytes: u64) -> Option<()> {
        let next = self.offset.checked_add(bytes).filter(|next| *next <= self.end);
        self.offset = next.unwrap_or(self.end);
        next.map(drop)
    }

    fn byte(&mut self) -> Parsed<u8> {
        if self.offset >= self.end {
            return Ok(None);
        }
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

//! xz, and lzip.

use std::io::{self, Chain, Cursor, Read};

use flate2::Crc;
use lzma_rust2::{LzmaReader, XzReader};

use super::members::{self, MAX_DICTIONARY, Member, damaged, truncated, window_too_large};
use crate::unpack::fields::u32_at;
use crate::unpack::{
    embedded::ArchiveSignature,
    unpacker::{MAX_WINDOW, Unpacked, Unpacker},
};

const XZ_MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];

/// `LZIP`, version 1.
const LZIP_MAGIC: [u8; 5] = *b"LZIP\x01";

/// Length of the header of an xz stream: magic number, flags, and their CRC-32.
const HEADER: usize = 12;

/// Flags for a CRC-32 of each block, and the checksum of these flags.
const CRC32_FLAGS: [u8; 6] = [0, 1, 0x69, 0x22, 0xde, 0x36];

/// Memory of a decoder with the largest window, KiB. The decoder counts tables of up to 1 MiB as well.
const MEMORY_LIMIT: u32 = MAX_DICTIONARY / 1024 + 1024;

/// Output up to which a stream with a larger declared window is decoded, bytes. The decoder's window grows with the
/// output, to less than twice its length.
const MAX_PREFIX: usize = MAX_WINDOW / 2;

/// Number of bytes that are decoded by one call, at the start of a stream and after it.
const MIN_READ: usize = 64;
const MAX_READ: usize = 4096;

pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: &XZ_MAGIC, offset: 0, extent, is_preferred: false };

/// Returns the length of a stream header whose checksum is right.
fn extent(stream: &[u8]) -> Option<usize> {
    let mut crc = Crc::new();
    crc.update(stream.get(6..8)?);
    (u32_at(stream, 8) == Some(crc.sum())).then_some(HEADER)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(&XZ_MAGIC) || bytes.starts_with(&LZIP_MAGIC)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if bytes.starts_with(&LZIP_MAGIC) {
        members::unpack::<LzipMember>(bytes, members::unnamed(), unpacker)
    } else {
        members::unpack::<XzStreamMember>(bytes, members::unnamed(), unpacker)
    }
}

type XzInput<'a> = Chain<Cursor<[u8; HEADER]>, &'a [u8]>;

struct XzStreamMember<'a> {
    input: &'a [u8],
    decoder: XzReader<XzInput<'a>>,
    /// Number of decoded bytes.
    produced: usize,
    exceeds_window: bool,
}

/// Returns a decoder of one stream. The decoder rejects checks of unknown types, which xz and 7-Zip ignore. Such a
/// stream is decoded with another check, which fails after the first block.
fn xz_decoder(input: &[u8], memory_limit: u32) -> Option<XzReader<XzInput<'_>>> {
    let (header, rest) = input.split_first_chunk::<HEADER>()?;
    let mut header = *header;
    if !matches!(header, [_, _, _, _, _, _, 0, 0 | 1 | 4 | 10, ..])
        && let Some(flags) = header.last_chunk_mut()
    {
        *flags = CRC32_FLAGS;
    }
    Some(XzReader::new_mem_limit(Cursor::new(header).chain(rest), false, memory_limit))
}

impl<'a> Member<'a> for XzStreamMember<'a> {
    fn start(input: &'a [u8]) -> Option<Self> {
        if !input.starts_with(&XZ_MAGIC) {
            return None;
        }
        let decoder = xz_decoder(input, MEMORY_LIMIT)?;
        Some(Self { input, decoder, produced: 0, exceeds_window: false })
    }

    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        // The decoder returns nothing of a call in which it finds an error.
        let length = self.produced.clamp(MIN_READ, MAX_READ).min(output.len());
        let output = output.get_mut(..length).unwrap_or_default();
        let mut result = self.decoder.read(output);
        if is_out_of_memory(&result) && self.produced == 0 && !self.exceeds_window {
            self.exceeds_window = true;
            self.decoder = xz_decoder(self.input, u32::MAX).ok_or_else(truncated)?;
            result = self.decoder.read(output);
        }
        if is_out_of_memory(&result) || (self.exceeds_window && self.produced > MAX_PREFIX) {
            return Err(window_too_large());
        }
        let length = result?;
        self.produced = self.produced.saturating_add(length);
        Ok(length)
    }

    fn finish(self) -> (&'a [u8], io::Result<()>) {
        (self.decoder.into_inner().into_inner().1, Ok(()))
    }
}

fn is_out_of_memory(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
}

/// Length of the trailer: CRC-32, length of the content, length of the member.
const LZIP_TRAILER: usize = 20;

/// Member of an lzip file. The library's lzip decoder loses content before a damaged trailer.
struct LzipMember<'a> {
    input: &'a [u8],
    decoder: LzmaReader<&'a [u8]>,
    crc: Crc,
}

impl<'a> Member<'a> for LzipMember<'a> {
    fn start(input: &'a [u8]) -> Option<Self> {
        let [size, data @ ..] = input.strip_prefix(&LZIP_MAGIC)? else { return None };
        let base = 1_u32.checked_shl(u32::from(size & 0x1f))?;
        let window = base.saturating_sub(base / 16 * u32::from(size >> 5)).max(4096);
        // The largest window of lzip is 512 MiB. A smaller one differs only for longer contents.
        let window = window.min(MAX_DICTIONARY);
        let mut decoder = LzmaReader::new(data, u64::MAX, 3, 0, 2, window, None).ok()?;
        decoder.set_defer_errors(true);
        Some(Self { input: data, decoder, crc: Crc::new() })
    }

    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let length = self.decoder.read(output)?;
        self.crc.update(output.get(..length).unwrap_or_default());
        Ok(length)
    }

    fn finish(self) -> (&'a [u8], io::Result<()>) {
        let (rest, buffered) = self.decoder.into_parts();
        let remaining = rest.len().saturating_add(buffered.len());
        let start = self.input.len().saturating_sub(remaining);
        let trailer = self.input.get(start..).unwrap_or_default();
        let Some(sum) = u32_at(trailer, 0) else { return (&[], Err(truncated())) };
        let rest = trailer.get(LZIP_TRAILER..).unwrap_or_default();
        let is_valid = sum == self.crc.sum();
        (rest, if is_valid { Ok(()) } else { Err(damaged("the lzip checksum is wrong")) })
    }
}

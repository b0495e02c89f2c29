//! gzip, RFC 1952.
//!
//! Only the deflate decoder is from a library: programs ignore defects of headers and trailers that the library's gzip
//! decoder rejects before it returns any content.

use std::io;

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::members::{self, Member, damaged, truncated};
use crate::unpack::fields::u32_at;
use crate::unpack::{
    embedded::ArchiveSignature,
    name::EntryName,
    unpacker::{Unpacked, Unpacker},
};

const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// Magic number of gzip 0.5, which GNU gzip still decodes.
const OLD_MAGIC: [u8; 3] = [0x1f, 0x9e, 8];

/// Flags that no version of the format defines.
const RESERVED_FLAGS: u8 = 0xe0;

pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: &MAGIC, offset: 0, extent, is_preferred: false };

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC) || bytes.starts_with(&OLD_MAGIC)
}

/// Returns the length of the part of a header that all members have.
fn extent(member: &[u8]) -> Option<usize> {
    member.get(3).is_some_and(|flags| flags & RESERVED_FLAGS == 0).then_some(10)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if extent(bytes).is_none() {
        unpacker.set_doubtful();
    }
    let name = match parse_header(bytes) {
        Some((_, Some(name))) if !name.is_empty() => EntryName::file(name),
        _ => members::unnamed(),
    };
    members::unpack::<GzipMember>(bytes, name, unpacker)
}

/// Returns the compressed data after the header, and the name of the file. The data is empty if the header is
/// truncated. Reserved flags and the header's checksum are ignored, as some programs do.
fn parse_header(input: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    if !matches(input) {
        return None;
    }
    let flags = input.get(3).copied().unwrap_or_default();
    let mut rest = input.get(10..).unwrap_or_default();
    if flags & FEXTRA != 0 {
        let length = rest.first_chunk::<2>().map_or(0, |bytes| u16::from_le_bytes(*bytes));
        rest = rest.get(2 + usize::from(length)..).unwrap_or_default();
    }
    let mut name = None;
    if flags & FNAME != 0 {
        name = Some(take_string(&mut rest));
    }
    if flags & FCOMMENT != 0 {
        take_string(&mut rest);
    }
    if flags & FHCRC != 0 {
        rest = rest.get(2..).unwrap_or_default();
    }
    Some((rest, name))
}

/// Removes a string that ends with a zero byte from the start of `input`.
fn take_string<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (string, rest) = input.split_at(end);
    *input = rest.get(1..).unwrap_or_default();
    string
}

struct GzipMember<'a> {
    inflate: Decompress,
    input: &'a [u8],
    crc: Crc,
    error: Option<io::Error>,
}

impl<'a> Member<'a> for GzipMember<'a> {
    fn start(input: &'a [u8]) -> Option<Self> {
        let (input, _) = parse_header(input)?;
        Some(Self { inflate: Decompress::new(false), input, crc: Crc::new(), error: None })
    }

    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            let (total_in, total_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(self.input, output, FlushDecompress::None);
            let consumed = difference(self.inflate.total_in(), total_in);
            let written = difference(self.inflate.total_out(), total_out);
            self.input = self.input.get(consumed..).unwrap_or_default();
            let is_end = matches!(status, Ok(Status::StreamEnd));
            if status.is_err() {
                self.error = Some(damaged("the deflate data is damaged"));
            } else if !is_end && consumed == 0 && written == 0 {
                self.error = Some(truncated());
            }
            if written > 0 || is_end {
                self.crc.update(output.get(..written).unwrap_or_default());
                return Ok(written);
            }
        }
    }

    fn finish(self) -> (&'a [u8], io::Result<()>) {
        let (Some(sum), Some(length)) = (u32_at(self.input, 0), u32_at(self.input, 4)) else {
            return (&[], Err(truncated()));
        };
        let rest = self.input.get(8..).unwrap_or_default();
        let is_valid = (sum, length) == (self.crc.sum(), self.crc.amount());
        (rest, if is_valid { Ok(()) } else { Err(damaged("the gzip checksum is wrong")) })
    }
}

/// Returns how much a counter of a decoder has grown during one call, which is at most the length of a slice.
pub(super) fn difference(after: u64, before: u64) -> usize {
    usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX)
}

//! bzip2.

use std::io;

use bzip2::{Decompress, Status};

use super::{
    gzip::difference,
    members::{self, Member, damaged, truncated},
};
use crate::unpack::{
    embedded::ArchiveSignature,
    unpacker::{Unpacked, Unpacker},
};

/// Start of a block, and the end of a stream.
const BLOCK: [u8; 6] = [0x31, 0x41, 0x59, 0x26, 0x53, 0x59];
const END: [u8; 6] = [0x17, 0x72, 0x45, 0x38, 0x50, 0x90];

pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: b"BZh", offset: 0, extent, is_preferred: false };

/// Returns the length of the header of a stream and of its first block.
fn extent(stream: &[u8]) -> Option<usize> {
    matches(stream).then_some(10)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    let Some(([b'B', b'Z', b'h', b'1'..=b'9'], rest)) = bytes.split_first_chunk() else {
        return false;
    };
    rest.starts_with(&BLOCK) || rest.starts_with(&END)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    members::unpack::<Bzip2Stream>(bytes, members::unnamed(), unpacker)
}

struct Bzip2Stream<'a> {
    decoder: Decompress,
    input: &'a [u8],
    is_ended: bool,
    error: Option<io::Error>,
}

impl<'a> Member<'a> for Bzip2Stream<'a> {
    /// A decoder costs about 100 µs, because it has tables of 3.6 MB. Parallel compressors write streams of 100 kB or
    /// more.
    const MAX_MEMBERS: u32 = 4096;

    fn start(input: &'a [u8]) -> Option<Self> {
        let decoder = || Decompress::new(false);
        matches(input).then(|| Self { decoder: decoder(), input, is_ended: false, error: None })
    }

    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        while !self.is_ended {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            let (total_in, total_out) = (self.decoder.total_in(), self.decoder.total_out());
            let status = self.decoder.decompress(self.input, output);
            let consumed = difference(self.decoder.total_in(), total_in);
            let written = difference(self.decoder.total_out(), total_out);
            self.input = self.input.get(consumed..).unwrap_or_default();
            match status {
                Ok(Status::StreamEnd) => self.is_ended = true,
                Ok(Status::MemNeeded) => self.error = Some(io::ErrorKind::OutOfMemory.into()),
                Ok(_) if consumed == 0 && written == 0 => self.error = Some(truncated()),
                Ok(_) => {}
                Err(_) => self.error = Some(damaged("the bzip2 data is damaged")),
            }
            if written > 0 {
                return Ok(written);
            }
        }
        Ok(0)
    }

    fn finish(self) -> (&'a [u8], io::Result<()>) {
        (self.input, Ok(()))
    }
}

//! Files that `COMPRESS.EXE` of MS-DOS and Windows 3 wrote (SZDD), and those of `QBasic`.

use std::io::{self, Read};

use super::members::truncated;
use crate::unpack::{
    fields::FieldReader,
    name::EntryName,
    unpacker::{Unpacked, Unpacker},
};

/// First bytes, and the length of the header.
const DOS: (&[u8], usize) = (b"SZDD\x88\xf0\x27\x33A", 14);
const QBASIC: (&[u8], usize) = (b"SZ \x88\xf0\x27\x33\xd1", 12);

const WINDOW: usize = 4096;

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    [DOS, QBASIC].iter().any(|(magic, _)| bytes.starts_with(magic))
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let (header, position) =
        if bytes.starts_with(DOS.0) { (DOS.1, WINDOW - 16) } else { (QBASIC.1, WINDOW - 18) };
    // The size is the last field of both headers.
    let size = bytes.get(header - 4..).and_then(|size| FieldReader::new(size).length());
    let reader = SzddReader {
        input: bytes.get(header..).unwrap_or_default(),
        missing: size.unwrap_or(usize::MAX),
        window: [b' '; WINDOW],
        position,
        flags: 1,
        copy: (0, 0),
    };
    unpacker.decode(EntryName::label("content"), reader).map(drop)
}

/// Decodes to the end of the input. Some programs end at the size that the header states.
struct SzddReader<'a> {
    input: &'a [u8],
    /// Number of bytes up to the size in the header.
    missing: usize,
    window: [u8; WINDOW],
    position: usize,
    /// The next flags, the lowest bit first, with a 1 above the last one.
    flags: u16,
    /// Position in the window of bytes to copy, and their number.
    copy: (usize, usize),
}

impl SzddReader<'_> {
    fn input_byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.input.split_first()?;
        self.input = rest;
        Some(*byte)
    }

    /// Decodes the next byte. `None` at the end.
    fn next_byte(&mut self) -> Option<u8> {
        let byte = if let (start, length @ 1..) = self.copy {
            self.copy = ((start + 1) % WINDOW, length - 1);
            self.window.get(start).copied()?
        } else {
            if self.flags <= 1 {
                self.flags = 0x100 | u16::from(self.input_byte()?);
            }
            let is_byte = self.flags & 1 != 0;
            self.flags >>= 1;
            let first = self.input_byte()?;
            if !is_byte {
                let second = self.input_byte()?;
                let start = usize::from(first) | usize::from(second & 0xf0) << 4;
                self.copy = (start, usize::from(second & 0x0f) + 3);
                return self.next_byte();
            }
            first
        };
        if let Some(entry) = self.window.get_mut(self.position) {
            *entry = byte;
        }
        self.position = (self.position + 1) % WINDOW;
        self.missing = self.missing.saturating_sub(1);
        Some(byte)
    }
}

impl Read for SzddReader<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        for byte in output {
            match self.next_byte() {
                Some(next) => *byte = next,
                None if written == 0 && self.missing > 0 => return Err(truncated()),
                None => break,
            }
            written += 1;
        }
        Ok(written)
    }
}

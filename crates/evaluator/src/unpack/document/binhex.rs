//! `BinHex` 4.0 (RFC 1741): files of old Macintosh computers in mail.

use std::io::{self, Read};

use crate::unpack::{
    content::positions,
    name::EntryName,
    unpacker::{Unpacked, Unpacker},
};

/// Start of the line before the data.
const ANNOUNCEMENT: &[u8] = b"(This file must be converted with BinHex";

/// Maximum number of announcements that are followed.
const MAX_ANNOUNCEMENTS: usize = 8;

/// Number of bytes in which the line is searched: the text of a message may be before it.
const MAX_LEADING: usize = 8192;

/// The characters, in the order of their values.
const ALPHABET: &[u8; 64] = b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr";

/// Marks a repetition of the byte before it.
const REPEAT: u8 = 0x90;

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    files(bytes).next().is_some()
}

/// Returns the characters between the colons after each announcement: the first colon at the start of a line, and the
/// first one anywhere.
fn files(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let head = bytes.get(..MAX_LEADING).unwrap_or(bytes);
    let announced = positions(head, ANNOUNCEMENT).take(MAX_ANNOUNCEMENTS);
    let starts = announced.flat_map(move |start| {
        let text = bytes.get(start..).unwrap_or_default();
        let is_start = |pair: &[u8]| matches!(pair, [b'\n' | b'\r', b':']);
        let at_line = text.windows(2).position(is_start).map(|offset| start + offset + 1);
        let first = text.iter().position(|byte| *byte == b':').map(|offset| start + offset);
        [at_line, first.filter(|first| Some(*first) != at_line)]
    });
    let mut seen = Vec::new();
    starts.flatten().filter_map(move |colon| {
        if seen.contains(&colon) {
            return None;
        }
        seen.push(colon);
        let data = bytes.get(colon + 1..)?;
        let end = data.iter().position(|byte| *byte == b':').unwrap_or(data.len());
        data.get(..end)
    })
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut has_header = false;
    for data in files(bytes) {
        let mut reader = BinHexReader::new(data);
        if let Some(header) = BinHexHeader::read(&mut reader) {
            has_header = true;
            forks(&header, reader, unpacker)?;
        }
    }
    if !has_header {
        unpacker.note_error(&truncated());
    }
    Ok(())
}

/// Passes the data fork and the resource fork.
fn forks(
    header: &BinHexHeader,
    mut reader: BinHexReader<'_>,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    for length in [header.data, header.resources] {
        if length > 0 {
            let fork = ForkReader { reader: &mut reader, remaining: length };
            unpacker.decode(EntryName::file(&header.name), fork)?;
        }
        // The checksum.
        let _ = reader.array::<2>();
    }
    Ok(())
}

/// The header before the forks.
struct BinHexHeader {
    name: Vec<u8>,
    /// Lengths of the forks, bytes.
    data: u32,
    resources: u32,
}

impl BinHexHeader {
    fn read(reader: &mut BinHexReader<'_>) -> Option<Self> {
        let length = reader.next_byte()?;
        let mut name = Vec::new();
        for _ in 0..length {
            name.push(reader.next_byte()?);
        }
        // A zero, type, creator and flags.
        reader.array::<11>()?;
        let data = u32::from_be_bytes(reader.array()?);
        let resources = u32::from_be_bytes(reader.array()?);
        reader.array::<2>()?;
        Some(Self { name, data, resources })
    }
}

/// Decodes the characters, and the repetitions in the decoded bytes. Other characters are skipped.
struct BinHexReader<'a> {
    input: &'a [u8],
    bits: u32,
    bit_count: u32,
    last: u8,
    repetitions: u8,
}

impl<'a> BinHexReader<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self { input, bits: 0, bit_count: 0, last: 0, repetitions: 0 }
    }

    /// Returns the next byte before repetitions are decoded.
    fn next_packed(&mut self) -> Option<u8> {
        while self.bit_count < 8 {
            let (character, rest) = self.input.split_first()?;
            self.input = rest;
            let value = ALPHABET.iter().position(|known| known == character);
            if let Some(value) = value.and_then(|value| u32::try_from(value).ok()) {
                self.bits = self.bits << 6 | value;
                self.bit_count += 6;
            }
        }
        self.bit_count -= 8;
        let [.., byte] = (self.bits >> self.bit_count).to_be_bytes();
        Some(byte)
    }

    fn next_byte(&mut self) -> Option<u8> {
        while self.repetitions == 0 {
            let byte = self.next_packed()?;
            let count = if byte == REPEAT { self.next_packed()? } else { 0 };
            if count == 0 {
                // Any other byte, or the mark itself.
                self.last = byte;
                return Some(byte);
            }
            // The byte occurs this often, with the one before the mark.
            self.repetitions = count - 1;
        }
        self.repetitions -= 1;
        Some(self.last)
    }

    fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        for byte in &mut bytes {
            *byte = self.next_byte()?;
        }
        Some(bytes)
    }
}

/// Reads one fork.
struct ForkReader<'r, 'a> {
    reader: &'r mut BinHexReader<'a>,
    /// Bytes.
    remaining: u32,
}

impl Read for ForkReader<'_, '_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        for byte in output {
            if self.remaining == 0 {
                break;
            }
            match self.reader.next_byte() {
                Some(next) => *byte = next,
                None if written == 0 => return Err(truncated()),
                None => break,
            }
            self.remaining -= 1;
            written += 1;
        }
        Ok(written)
    }
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the BinHex file is truncated")
}

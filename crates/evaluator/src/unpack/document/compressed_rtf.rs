//! Compressed RTF of Outlook, [MS-OXRTFCP]: the formatted body in TNEF and in `.msg`.

use std::io::{self, Read};

use crate::unpack::{
    fields::FieldReader,
    name::EntryName,
    unpacker::{Unpacked, Unpacker},
};

/// Length of the header, bytes: compressed size, size, type, checksum.
const HEADER: usize = 16;

const COMPRESSED: &[u8] = b"LZFu";
const UNCOMPRESSED: &[u8] = b"MELA";

/// Size of the dictionary, bytes.
const DICTIONARY: usize = 4096;

/// Content of the dictionary at the start, [MS-OXRTFCP] 2.1.2.1.
const START: &[u8; 207] = b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \
    \\fswiss \\fmodern \\fscript \\fdecor MS Sans SerifSymbolArialTimes New RomanCourier\
    {\\colortbl\\red0\\green0\\blue0\r\n\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx";

/// Maximum length of a reference, bytes.
const MAX_REFERENCE: usize = 17;

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.get(8..12).is_some_and(|kind| kind == COMPRESSED || kind == UNCOMPRESSED)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let data = bytes.get(HEADER..).unwrap_or_default();
    let name = EntryName::label("RTF");
    if bytes.get(8..12) == Some(UNCOMPRESSED) {
        return unpacker.slice(name, data);
    }
    let size = bytes.get(4..).and_then(|size| FieldReader::new(size).length());
    unpacker.decode(name, CompressedRtf::new(data, size.unwrap_or_default())).map(drop)
}

/// Decodes up to the mark at the end. Some programs end at the size that the header states, and some writers omit the
/// mark.
struct CompressedRtf<'a> {
    input: &'a [u8],
    /// Size that the header states, bytes.
    size: usize,
    /// Number of decoded bytes.
    decoded: usize,
    dictionary: [u8; DICTIONARY],
    /// Where the next byte is written in the dictionary.
    position: usize,
    /// The next flags, the lowest bit first, with a 1 above the last one.
    flags: u16,
    /// Decoded bytes that are not returned yet, from `returned` on.
    pending: [u8; MAX_REFERENCE],
    returned: usize,
    available: usize,
    is_ended: bool,
}

impl<'a> CompressedRtf<'a> {
    fn new(input: &'a [u8], size: usize) -> Self {
        // Decoders fill the rest of the dictionary with zeros.
        let mut dictionary = [0; DICTIONARY];
        dictionary.iter_mut().zip(START).for_each(|(byte, start)| *byte = *start);
        Self {
            input,
            size,
            decoded: 0,
            dictionary,
            position: START.len(),
            flags: 1,
            pending: [0; MAX_REFERENCE],
            returned: 0,
            available: 0,
            is_ended: false,
        }
    }

    fn next_byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.input.split_first()?;
        self.input = rest;
        Some(*byte)
    }

    /// Appends a decoded byte.
    fn push(&mut self, byte: u8) {
        if let Some(entry) = self.dictionary.get_mut(self.position) {
            *entry = byte;
        }
        self.position = (self.position + 1) % DICTIONARY;
        if let Some(entry) = self.pending.get_mut(self.available) {
            *entry = byte;
        }
        self.available += 1;
    }

    /// Decodes one byte or one reference. `None` if the input ends.
    fn step(&mut self) -> Option<()> {
        if self.flags <= 1 {
            self.flags = 0x100 | u16::from(self.next_byte()?);
        }
        let is_reference = self.flags & 1 != 0;
        self.flags >>= 1;
        if !is_reference {
            let byte = self.next_byte()?;
            self.push(byte);
            return Some(());
        }
        let reference = u16::from_be_bytes([self.next_byte()?, self.next_byte()?]);
        let offset = usize::from(reference >> 4);
        if offset == self.position {
            self.is_ended = true;
            return Some(());
        }
        for index in 0..usize::from(reference & 0xf) + 2 {
            let byte = self.dictionary.get((offset + index) % DICTIONARY).copied();
            self.push(byte.unwrap_or_default());
        }
        Some(())
    }
}

impl Read for CompressedRtf<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < output.len() {
            if self.returned == self.available {
                (self.returned, self.available) = (0, 0);
                if self.is_ended {
                    break;
                }
                if self.step().is_none() {
                    if written == 0 && self.decoded < self.size {
                        return Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "the compressed RTF is truncated",
                        ));
                    }
                    break;
                }
                self.decoded += self.available;
                continue;
            }
            let decoded = self.pending.get(self.returned..self.available).unwrap_or_default();
            let mut rest = output.get_mut(written..).unwrap_or_default();
            let length = io::Write::write(&mut rest, decoded)?;
            self.returned += length;
            written += length;
        }
        Ok(written)
    }
}

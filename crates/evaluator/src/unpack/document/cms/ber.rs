//! Basic Encoding Rules (ITU-T X.690), as far as CMS needs them: lengths may be indefinite, and strings may consist of
//! segments.

use std::io::{self, Read};

/// Maximum number of elements in each other in which the end of an element is searched.
const MAX_DEPTH: usize = 16;

/// Identifiers with one byte: bit 5 marks constructed elements.
pub(super) const CONSTRUCTED: u8 = 0x20;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const OCTET_STRING: u8 = 0x04;
const END_OF_CONTENTS: u8 = 0;

/// Identifier and length of an element.
#[derive(Clone, Copy)]
pub(super) struct BerHeader {
    pub(super) tag: u8,
    /// `None` if the element ends with a mark.
    pub(super) length: Option<usize>,
}

/// Reads elements one after another.
#[derive(Clone, Copy)]
pub(super) struct BerReader<'a> {
    rest: &'a [u8],
}

impl<'a> BerReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns the bytes that are not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    /// Reads at most `length` bytes.
    pub(super) fn up_to(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// Reads an identifier and a length. `None` if they are truncated or invalid: identifiers of several bytes do not
    /// occur.
    pub(super) fn header(&mut self) -> Option<BerHeader> {
        let tag = self.byte()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let length = match self.byte()? {
            0x80 => None,
            short @ 0..0x80 => Some(usize::from(short)),
            // Decoders accept lengths with leading zeros.
            long => {
                let mut length = 0_usize;
                for _ in 0..long & 0x7f {
                    length = length.checked_mul(256)?.checked_add(self.byte()?.into())?;
                }
                Some(length)
            }
        };
        Some(BerHeader { tag, length })
    }

    /// Reads the header of an element with this identifier. The element's content follows.
    pub(super) fn enter(&mut self, tag: u8) -> Option<BerHeader> {
        self.header().filter(|header| header.tag == tag)
    }

    /// Reads the content of an element with this identifier and a length, as far as there is any.
    pub(super) fn content(&mut self, tag: u8) -> Option<&'a [u8]> {
        let length = self.enter(tag)?.length?;
        Some(self.up_to(length))
    }

    /// Returns whether the next element has this identifier.
    pub(super) fn is_at(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    /// Returns whether the next element is a string.
    pub(super) fn is_at_string(&self) -> bool {
        self.is_at(OCTET_STRING) || self.is_at(OCTET_STRING | CONSTRUCTED)
    }

    /// Returns whether an element ends here.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.first().is_none_or(|tag| *tag == END_OF_CONTENTS)
    }

    /// Ends at the end of the element whose header was read, if that is known.
    pub(super) fn end_at(&mut self, header: BerHeader) {
        let content = header.length.and_then(|length| self.rest.get(..length));
        self.rest = content.unwrap_or(self.rest);
    }

    /// Skips an element.
    pub(super) fn skip(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            let header = self.header()?;
            match header.length {
                Some(length) => _ = self.up_to(length),
                None if depth < MAX_DEPTH => depth += 1,
                None => return None,
            }
            if header.tag == END_OF_CONTENTS {
                depth = depth.checked_sub(1)?;
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

/// Reads the content of a string, or of a string of segments, which may consist of segments themselves. Segments may have
/// any type.
pub(super) struct SegmentReader<'a> {
    reader: BerReader<'a>,
    /// Number of bytes of the current segment that are not read yet.
    remaining: usize,
    /// The strings that are open: how many bytes are left at their ends, `None` if they end with a mark.
    ends: Vec<Option<usize>>,
}

impl<'a> SegmentReader<'a> {
    /// Creates a reader of the string whose header was read.
    pub(super) fn new(reader: BerReader<'a>, header: BerHeader) -> Self {
        let mut segments = Self { reader, remaining: 0, ends: Vec::new() };
        if header.tag & CONSTRUCTED == 0 {
            segments.remaining = header.length.unwrap_or_default();
        } else {
            segments.open(header.length);
        }
        segments
    }

    fn open(&mut self, length: Option<usize>) {
        let left = self.reader.rest.len();
        self.ends.push(length.map(|length| left.saturating_sub(length)));
    }

    /// Opens the next segment. Returns whether there is one.
    fn next_segment(&mut self) -> io::Result<bool> {
        while let Some(end) = self.ends.last() {
            if end.is_some_and(|end| self.reader.rest.len() <= end) {
                self.ends.pop();
                continue;
            }
            let header = self.reader.header().ok_or_else(truncated)?;
            if header.tag == END_OF_CONTENTS && end.is_none() {
                self.ends.pop();
            } else if header.tag & CONSTRUCTED == 0 {
                self.remaining = header.length.ok_or_else(truncated)?;
                return Ok(true);
            } else if self.ends.len() < MAX_DEPTH {
                self.open(header.length);
            } else {
                return Err(truncated());
            }
        }
        Ok(false)
    }
}

impl Read for SegmentReader<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        while self.remaining == 0 {
            if output.is_empty() || !self.next_segment()? {
                return Ok(0);
            }
        }
        let length = self.remaining.min(output.len());
        let mut bytes = self.reader.up_to(length);
        let read = bytes.read(output)?;
        if read == 0 && length > 0 {
            return Err(truncated());
        }
        self.remaining -= read;
        Ok(read)
    }
}

fn truncated() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the content is truncated or its segments are damaged",
    )
}

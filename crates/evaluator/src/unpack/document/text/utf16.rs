//! Text in UTF-16 with a byte order mark, or with a tag at the start.

use std::io::{self, Read};

/// Number of code units at the start that are examined.
const EXAMINED: usize = 64;

/// Text that is converted to UTF-8.
pub(super) struct Utf16Text<'a> {
    units: std::slice::Iter<'a, [u8; 2]>,
    is_big_endian: bool,
    /// Converted bytes that are not read yet, and the first of them.
    pending: Vec<u8>,
    position: usize,
}

impl<'a> Utf16Text<'a> {
    /// Returns the text after a mark, which browsers trust, or from a tag on.
    pub(super) fn detect(bytes: &'a [u8]) -> Option<Self> {
        let (is_big_endian, start) = match bytes {
            [0xff, 0xfe, ..] => (false, 2),
            [0xfe, 0xff, ..] => (true, 2),
            [b'<', 0, 1..=0x7f, 0, ..] => (false, 0),
            [0, b'<', 0, 1..=0x7f, ..] => (true, 0),
            _ => return None,
        };
        let (units, _) = bytes.get(start..)?.as_chunks::<2>();
        Some(Self { units: units.iter(), is_big_endian, pending: Vec::new(), position: 0 })
    }

    /// Returns whether most of the first characters are ASCII. Other files begin with the same bytes.
    pub(super) fn is_probable(&self) -> bool {
        let examined = self.units.clone().take(EXAMINED);
        let ascii = examined.clone().filter(|unit| matches!(self.unit(**unit), 1..=0x7f)).count();
        ascii > 0 && 2 * ascii >= examined.len()
    }

    fn unit(&self, unit: [u8; 2]) -> u16 {
        if self.is_big_endian { u16::from_be_bytes(unit) } else { u16::from_le_bytes(unit) }
    }
}

impl Read for Utf16Text<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.pending.len() {
            // A surrogate pair that is cut here is replaced, which matters for no base64 character.
            let units: Vec<_> = self.units.by_ref().take(4096).copied().collect();
            let units = units.into_iter().map(|unit| self.unit(unit));
            let text =
                char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER));
            self.pending = text.collect::<String>().into_bytes();
            self.position = 0;
        }
        let length = self.pending.get(self.position..).unwrap_or_default().read(output)?;
        self.position += length;
        Ok(length)
    }
}

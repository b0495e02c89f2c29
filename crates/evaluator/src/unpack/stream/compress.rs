//! LZW of the program `compress` (`.Z`). The libraries for LZW have the variants of GIF, TIFF and PDF only.

use std::io::{self, Read};

use super::members::{self, damaged};
use crate::unpack::unpacker::{Unpacked, Unpacker};

const MAGIC: [u8; 2] = [0x1f, 0x9d];

/// Bits of the flags after the magic number: maximum width of codes, and whether a code clears the table.
const MAX_WIDTH: u8 = 0x1f;
const HAS_CLEAR: u8 = 0x80;

/// Minimum and maximum width of codes, bits.
const FIRST_WIDTH: u32 = 9;
const LAST_WIDTH: u32 = 16;

/// Code that clears the table.
const CLEAR: usize = 256;

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    parse_flags(bytes).is_some()
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let Some((max_width, has_clear)) = parse_flags(bytes) else { return Ok(()) };
    let codes = bytes.get(3..).unwrap_or_default();
    unpacker.decode(members::unnamed(), LzwReader::new(codes, max_width, has_clear)).map(drop)
}

/// Returns the maximum width of codes, and whether a code clears the table.
fn parse_flags(bytes: &[u8]) -> Option<(u32, bool)> {
    let flags = *bytes.strip_prefix(&MAGIC)?.first()?;
    let width = u32::from(flags & MAX_WIDTH);
    (FIRST_WIDTH..=LAST_WIDTH).contains(&width).then_some((width, flags & HAS_CLEAR != 0))
}

struct LzwReader<'a> {
    input: &'a [u8],
    max_width: u32,
    has_clear: bool,
    width: u32,
    /// Position of the next code, and of the first code of this width, bits. Codes are written in groups of eight, and
    /// an incomplete group is filled when the width changes.
    position: usize,
    start: usize,
    /// Previous code and last byte of each code, from 256 on.
    table: Vec<(u16, u8)>,
    previous: Option<(usize, u8)>,
    /// Decoded bytes in reverse order.
    pending: Vec<u8>,
    is_damaged: bool,
}

impl<'a> LzwReader<'a> {
    fn new(input: &'a [u8], max_width: u32, has_clear: bool) -> Self {
        Self {
            input,
            max_width,
            has_clear,
            width: FIRST_WIDTH,
            position: 0,
            start: 0,
            // The code that clears has an entry that is not used.
            table: vec![(0, 0); usize::from(has_clear)],
            previous: None,
            pending: Vec::new(),
            is_damaged: false,
        }
    }

    /// Reads the next code; `None` at the end.
    fn next_code(&mut self) -> Option<usize> {
        let bytes = self.input.get(self.position / 8..)?;
        let mut word = [0; 4];
        let length = bytes.len().min(3);
        word.get_mut(..length)?.copy_from_slice(bytes.get(..length)?);
        if self.position + self.width as usize > self.input.len() * 8 {
            return None;
        }
        let code = u32::from_le_bytes(word) >> (self.position % 8) & ((1 << self.width) - 1);
        self.position += self.width as usize;
        Some(code as usize)
    }

    /// Continues with codes of another width, after the current group.
    fn set_width(&mut self, width: u32) {
        let group = self.width as usize * 8;
        let length = (self.position - self.start).next_multiple_of(group);
        self.start += length;
        self.position = self.start;
        self.width = width;
    }

    /// Decodes the next code. Returns whether there is one.
    fn step(&mut self) -> bool {
        if CLEAR + self.table.len() >= 1 << self.width && self.width < self.max_width {
            self.set_width(self.width + 1);
        }
        let Some(code) = self.next_code() else { return false };
        if code == CLEAR && self.has_clear {
            self.table.clear();
            self.set_width(FIRST_WIDTH);
            return true;
        }
        let index = code.checked_sub(CLEAR);
        let Some((previous, first)) = self.previous else {
            self.is_damaged = index.is_some();
            if !self.is_damaged {
                self.previous = Some((code, self.push(code)));
            }
            return !self.is_damaged;
        };
        let mut current = code;
        if index.is_some_and(|index| index >= self.table.len()) {
            // Only the code that this step adds can be new.
            self.is_damaged = index != Some(self.table.len());
            if self.is_damaged {
                return false;
            }
            self.pending.push(first);
            current = previous;
        }
        let first = self.push(current);
        if CLEAR + self.table.len() < 1 << self.max_width
            && let Ok(previous) = u16::try_from(previous)
        {
            self.table.push((previous, first));
        }
        self.previous = Some((code, first));
        true
    }

    /// Appends the bytes of a code in reverse order. Returns the first byte.
    fn push(&mut self, mut code: usize) -> u8 {
        // The entries of a chain are in descending order, except for one after the table was cleared.
        for _ in 0..=self.table.len() {
            let Some(&(previous, byte)) =
                code.checked_sub(CLEAR).and_then(|index| self.table.get(index))
            else {
                break;
            };
            self.pending.push(byte);
            code = previous.into();
        }
        let first = u8::try_from(code).unwrap_or_default();
        self.pending.push(first);
        first
    }
}

impl Read for LzwReader<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        for byte in output {
            while self.pending.is_empty() && !self.is_damaged && self.step() {}
            let Some(next) = self.pending.pop() else {
                if self.is_damaged && written == 0 {
                    return Err(damaged("the LZW data is damaged"));
                }
                return Ok(written);
            };
            *byte = next;
            written += 1;
        }
        Ok(written)
    }
}

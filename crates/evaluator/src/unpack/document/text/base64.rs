//! Runs of base64 characters, and their decoder.

use std::io::{self, Read};

/// Minimum length of a line that another line may follow, characters, unless the run is announced. Words in lists are
/// shorter.
const MIN_LINE: usize = 16;

/// Maximum length of white space between two lines, bytes.
const MAX_BREAK: usize = 256;

/// Marks a byte that is no base64 character.
const NONE: u8 = 64;

/// Values of the characters, those of base64url included.
static VALUES: [u8; 256] = values();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn values() -> [u8; 256] {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < 64 {
        values[alphabet[value as usize] as usize] = value;
        value += 1;
    }
    values[b'-' as usize] = 62;
    values[b'_' as usize] = 63;
    values
}

fn value(byte: u8) -> u8 {
    VALUES.get(usize::from(byte)).copied().unwrap_or(NONE)
}

pub(super) fn is_base64(byte: u8) -> bool {
    value(byte) != NONE
}

/// Returns the length of the base64 characters at the start of `bytes`.
pub(super) fn word_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_base64(*byte)).unwrap_or(bytes.len())
}

/// What can be between base64 characters.
enum Separator {
    /// A character that is escaped.
    Character(u8),
    Break,
}

/// Parses the separator at the start of `bytes`. Returns its length as well.
fn separator(bytes: &[u8], allows_spaces: bool) -> Option<(Separator, usize)> {
    let (kind, length) = match bytes {
        // JSON, JavaScript; line continuation; vCard and iCalendar.
        [b'\\', b'/', ..] => (Separator::Character(b'/'), 2),
        [b'\\', b'n' | b'r' | b't' | b'\n' | b'\r', ..] => (Separator::Break, 2),
        [b'\n' | b'\r' | b'\x0c' | 0, ..] => (Separator::Break, 1),
        [b' ' | b'\t', ..] if allows_spaces => (Separator::Break, 1),
        [b'%', rest @ ..] => match percent_encoded(rest)? {
            byte if is_base64(byte) => (Separator::Character(byte), 3),
            byte if byte.is_ascii_whitespace() => (Separator::Break, 3),
            _ => return None,
        },
        [b'&', b'#', ..] => (Separator::Break, line_end_reference(bytes)?),
        _ => return None,
    };
    Some((kind, length))
}

/// Returns the byte whose two digits are at the start of `digits`.
pub(super) fn percent_encoded(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Returns the length of a character reference for a line end, tab or space: `&#10;`, `&#xD;`.
fn line_end_reference(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().take(10).position(|byte| *byte == b';')?;
    let digits = std::str::from_utf8(bytes.get(2..end)?).ok()?;
    let number = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    matches!(number, Ok(9 | 10 | 13 | 32)).then_some(end + 1)
}

/// Base64 characters with line breaks between them.
pub(super) struct Base64Run<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) characters: usize,
}

impl<'a> Base64Run<'a> {
    /// Parses the run at the start of `bytes`, where a word of `length` characters is. An announced run may have spaces
    /// and lines of any length.
    pub(super) fn parse(bytes: &'a [u8], length: usize, is_announced: bool) -> Self {
        let (mut end, mut characters) = (length, length);
        let mut line = length;
        let mut is_first_line = true;
        while let Some(Gap { length: gap, escaped, is_break }) =
            Gap::parse(bytes.get(end..).unwrap_or_default(), is_announced)
        {
            let rest = bytes.get(end + gap..).unwrap_or_default();
            let word = word_length(rest);
            if is_break {
                // A shorter line before the first line is a heading: `-----BEGIN CERTIFICATE-----`.
                let is_joined = line >= MIN_LINE && (!is_first_line || word <= line);
                if word + escaped == 0 || !(is_joined || is_announced) {
                    break;
                }
                is_first_line = false;
                line = 0;
            }
            line += word + escaped;
            characters += word + escaped;
            end += gap + word;
        }
        Self { bytes: bytes.get(..end).unwrap_or(bytes), characters }
    }
}

/// Separators between two words.
struct Gap {
    /// Bytes.
    length: usize,
    /// Number of escaped characters.
    escaped: usize,
    /// Whether one of the separators is a line break.
    is_break: bool,
}

impl Gap {
    /// Parses the separators at the start of `bytes`.
    fn parse(bytes: &[u8], is_announced: bool) -> Option<Self> {
        let mut gap = Self { length: 0, escaped: 0, is_break: false };
        while gap.length < MAX_BREAK
            && let Some((kind, separator)) =
                separator(bytes.get(gap.length..).unwrap_or_default(), is_announced || gap.is_break)
        {
            gap.length += separator;
            match kind {
                Separator::Character(_) => gap.escaped += 1,
                Separator::Break => gap.is_break = true,
            }
        }
        (gap.length > 0).then_some(gap)
    }
}

/// Decodes a run.
pub(in crate::unpack) struct Base64Content<'a> {
    rest: &'a [u8],
    /// Decoded bytes that are not read yet are the last ones of the group.
    group: [u8; 3],
    pending: usize,
}

impl<'a> Base64Content<'a> {
    pub(in crate::unpack) fn new(run: &'a [u8]) -> Self {
        Self { rest: run, group: [0; 3], pending: 0 }
    }

    /// Returns the value of the next character.
    fn next_value(&mut self) -> Option<u8> {
        loop {
            let (first, rest) = self.rest.split_first()?;
            let mut character = *first;
            let mut length = 1;
            if !is_base64(character) {
                let (kind, separator) = separator(self.rest, true)?;
                length = separator;
                match kind {
                    Separator::Character(escaped) => character = escaped,
                    Separator::Break => character = 0,
                }
            }
            self.rest = if length == 1 { rest } else { self.rest.get(length..)? };
            if is_base64(character) {
                return Some(value(character));
            }
        }
    }

    /// Decodes up to four characters, to at most three bytes at the end of the group.
    fn next_group(&mut self) {
        let (mut bits, mut characters) = (0_u32, 0_u32);
        while characters < 4
            && let Some(value) = self.next_value()
        {
            bits = bits << 6 | u32::from(value);
            characters += 1;
        }
        // Bits that are not part of a byte.
        bits >>= 6 * characters % 8;
        let [_, group @ ..] = bits.to_be_bytes();
        self.group = group;
        self.pending = (6 * characters / 8) as usize;
    }
}

impl Read for Base64Content<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < output.len() {
            if self.pending == 0 {
                self.next_group();
            }
            let start = self.group.len().saturating_sub(self.pending);
            let length = self
                .group
                .get(start..)
                .unwrap_or_default()
                .read(output.get_mut(written..).unwrap_or_default())?;
            if length == 0 {
                break;
            }
            self.pending -= length;
            written += length;
        }
        Ok(written)
    }
}

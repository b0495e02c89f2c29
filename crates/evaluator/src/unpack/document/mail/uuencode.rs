//! Uuencode (POSIX, `uuencode`): in a part with this transfer encoding, and in texts.

use super::{
    lines::line_at,
    transfer::{Decode, Decoding},
};
use crate::unpack::{
    name::EntryName,
    unpacker::{Unpacked, Unpacker},
};

/// Passes the files in a text: lines between `begin 644 name` and `end`.
///
/// # Errors
/// The walk ends.
pub(super) fn files(text: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut position = 0;
    while let Some(line) = line_at(text, position, true) {
        position = line.next;
        let Some(name) = begin(line.content) else { continue };
        let is_data = |content: &[u8]| data_length(content).is_some();
        if line_at(text, line.next, true).is_none_or(|first| !is_data(first.content)) {
            continue;
        }
        let rest = text.get(line.next..).unwrap_or_default();
        let length = length(rest);
        let lines = rest.get(..length).unwrap_or_default();
        position = line.next.saturating_add(length);
        unpacker.decode(EntryName::file(name), Decoding::new(Uuencode::new(lines)))?;
    }
    Ok(())
}

/// Returns whether a text has a line that starts a file.
pub(super) fn has_begin(text: &[u8]) -> bool {
    text.windows(6).any(|window| window == b"begin ")
}

/// Returns the name in a line that starts a file. Outlook accepts a missing mode.
fn begin(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"begin ")?.trim_ascii();
    let mode = rest.iter().take_while(|byte| matches!(byte, b'0'..=b'7')).count();
    let name = rest.get(mode..)?;
    let is_separate = name.first().is_none_or(|byte| *byte == b' ');
    Some(if is_separate { name.trim_ascii() } else { rest })
}

/// Returns the length of the lines before the line `end` or the start of another file, bytes.
fn length(text: &[u8]) -> usize {
    let mut position = 0;
    while let Some(line) = line_at(text, position, true) {
        if line.content.trim_ascii_end() == b"end" || begin(line.content).is_some() {
            break;
        }
        position = line.next;
    }
    position
}

/// Returns the number of bytes in a line; `None` if it is not uuencoded. Spaces at the end may be missing, and a checksum
/// may follow.
fn data_length(line: &[u8]) -> Option<usize> {
    let (first, data) = line.split_first()?;
    let length = usize::from(value(*first)?);
    let characters = length.div_ceil(3).saturating_mul(4);
    let data = data.trim_ascii_end();
    let is_valid = data.iter().all(|byte| value(*byte).is_some());
    let is_long = data.len() <= characters.saturating_add(2);
    // A line of spaces only is zeros.
    (length > 0 && is_valid && is_long && !(data.is_empty() && length > 45)).then_some(length)
}

/// Returns the six bits of a character: space to underscore, and a backquote for a space.
fn value(byte: u8) -> Option<u8> {
    matches!(byte, b' '..=b'`').then(|| byte.wrapping_sub(b' ') & 0x3f)
}

/// Decoder of uuencoded lines. Ignores other lines.
pub(super) struct Uuencode<'m> {
    lines: &'m [u8],
}

impl<'m> Uuencode<'m> {
    pub(super) fn new(lines: &'m [u8]) -> Self {
        Self { lines }
    }
}

impl Decode for Uuencode<'_> {
    fn decode(&mut self, output: &mut Vec<u8>) -> bool {
        let Some(line) = line_at(self.lines, 0, true) else { return false };
        self.lines = self.lines.get(line.next..).unwrap_or_default();
        if let (Some(length), [_, data @ ..]) = (data_length(line.content), line.content) {
            let mut bytes = Vec::new();
            for group in data.chunks(4) {
                let bits = (0..4).fold(0_u32, |bits, index| {
                    let byte = group.get(index).copied().and_then(value).unwrap_or_default();
                    bits << 6 | u32::from(byte)
                });
                let [_, group @ ..] = bits.to_be_bytes();
                bytes.extend_from_slice(&group);
            }
            bytes.resize(length, 0);
            output.extend_from_slice(&bytes);
        }
        true
    }
}

//! Finds objects, ends of streams and trailers in the bytes of a file.
//!
//! Cross-reference tables are not read: viewers use any object that a table, an older revision or a repair gives them,
//! so all of them are evaluated, wherever they are.

use std::ops::Range;

use super::lexer::{is_regular, is_white};

/// Maximum number of objects in a file. Viewers need a cross-reference entry of up to 20 bytes for each.
pub(super) const MAX_OBJECTS: usize = 1_000_000;

/// Maximum length of a number in the header of an object, and of a comment between its parts, bytes.
const MAX_BACK: usize = 128;

/// Maximum length of the rest of a line after `stream`, bytes.
const MAX_LINE: usize = 1024;

/// Number of an object whose number is too large.
pub(super) const NO_NUMBER: u32 = u32::MAX;

/// Start of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ObjectHeader {
    pub(super) number: u32,
    pub(super) generation: u32,
    /// Offset of the value, behind `obj`.
    pub(super) value: usize,
}

/// What is in a file.
pub(super) struct PdfStructure {
    pub(super) headers: Vec<ObjectHeader>,
    pub(super) has_more: bool,
    /// Offsets behind `trailer`.
    pub(super) trailers: Vec<usize>,
    /// Offsets of `endstream`.
    ends: Vec<usize>,
    /// Whether there is a `startxref` or `trailer`.
    pub(super) has_cross_references: bool,
}

impl PdfStructure {
    pub(super) fn find(bytes: &[u8]) -> Self {
        let mut headers = positions(bytes, b"obj").filter_map(|at| header(bytes, at));
        let found = headers.by_ref().take(MAX_OBJECTS).collect();
        let has_more = headers.next().is_some();
        let trailers: Vec<_> = positions(bytes, b"trailer").map(|at| at + 7).take(1024).collect();
        let has_cross_references =
            !trailers.is_empty() || positions(bytes, b"startxref").next().is_some();
        let ends = positions(bytes, b"endstream").collect();
        Self { headers: found, has_more, trailers, ends, has_cross_references }
    }

    /// Returns the ranges that viewers may take as the data of a stream. `after` is the offset behind `stream`.
    pub(super) fn data(
        &self,
        bytes: &[u8],
        after: usize,
        lengths: impl Iterator<Item = usize>,
    ) -> Vec<Range<usize>> {
        let is_end = |at: usize| {
            let rest = bytes.get(at..).unwrap_or_default();
            let blank = rest.iter().take(4).take_while(|byte| is_white(**byte)).count();
            rest.get(blank..).is_some_and(|rest| rest.starts_with(b"endstream"))
        };
        let lengths: Vec<_> = lengths.collect();
        let found = self.ends.get(self.ends.partition_point(|end| *end < after));
        let starts = data_starts(bytes, after);
        let range = |start: usize| {
            let ends = lengths.iter().filter_map(|length| start.checked_add(*length));
            let confirmed = ends.filter(|end| is_end(*end)).max();
            let end = confirmed.unwrap_or_else(|| match found {
                Some(end) => trim_line_end(bytes, start, *end),
                None => bytes.len(),
            });
            start..end.max(start)
        };
        starts.into_iter().map(range).collect()
    }
}

/// Returns the offsets of `needle`.
pub(super) fn positions<'a>(
    bytes: &'a [u8],
    needle: &'static [u8],
) -> impl Iterator<Item = usize> + 'a {
    let mut start = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = bytes.get(start..)?;
            let at = start + rest.iter().position(|byte| needle.first() == Some(byte))?;
            start = at + 1;
            if bytes.get(at..).is_some_and(|rest| rest.starts_with(needle)) {
                return Some(at);
            }
        }
    })
}

/// Reads `N G` before `obj`.
fn header(bytes: &[u8], at: usize) -> Option<ObjectHeader> {
    let value = at.checked_add(3)?;
    if bytes.get(value).copied().is_some_and(is_regular) {
        return None;
    }
    let before = bytes.get(at.saturating_sub(3 * MAX_BACK)..at)?;
    let (before, generation) = number_at_end(trim_blank_end(before))?;
    let trimmed = trim_blank_end(before);
    if trimmed.len() == before.len() {
        return None;
    }
    let (_, number) = number_at_end(trimmed)?;
    Some(ObjectHeader { number, generation, value })
}

fn number_at_end(bytes: &[u8]) -> Option<(&[u8], u32)> {
    let digits = bytes.iter().rev().take(MAX_BACK).take_while(|byte| byte.is_ascii_digit()).count();
    let (before, digits) = bytes.split_at_checked(bytes.len().checked_sub(digits)?)?;
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.is_empty())?;
    Some((before, text.parse().unwrap_or(NO_NUMBER)))
}

/// Removes white space and comments at the end.
fn trim_blank_end(mut bytes: &[u8]) -> &[u8] {
    loop {
        let blank = bytes.iter().rev().take_while(|byte| is_white(**byte)).count();
        let (text, blank) = bytes.split_at(bytes.len() - blank);
        bytes = text;
        if !blank.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return bytes;
        }
        let line = text.iter().rev().take(MAX_BACK);
        let line = line.take_while(|byte| !matches!(byte, b'\n' | b'\r')).count();
        let (before, line) = text.split_at(text.len() - line);
        let Some(comment) = line.iter().position(|byte| *byte == b'%') else { return bytes };
        bytes = text.get(..before.len() + comment).unwrap_or_default();
    }
}

/// Returns where data may start. An end of line must follow `stream`; some viewers skip the rest of the line.
fn data_starts(bytes: &[u8], after: usize) -> Vec<usize> {
    let rest = bytes.get(after..).unwrap_or_default();
    let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let line_end = |at: usize| match rest.get(at..) {
        Some([b'\r', b'\n', ..]) => Some(at + 2),
        Some([b'\n' | b'\r', ..]) => Some(at + 1),
        _ => None,
    };
    if let Some(start) = line_end(blank) {
        return vec![after + start];
    }
    let next = rest.iter().take(MAX_LINE).position(|byte| matches!(byte, b'\n' | b'\r'));
    let next = next.and_then(line_end).map(|start| after + start);
    std::iter::once(after).chain(next).collect()
}

fn trim_line_end(bytes: &[u8], start: usize, end: usize) -> usize {
    match bytes.get(start..end) {
        Some([.., b'\r', b'\n']) => end - 2,
        Some([.., b'\r' | b'\n']) => end - 1,
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_headers() {
        for (text, expected) in [
            (b"1 0 obj<<".as_slice(), Some((1, 0))),
            (b"endobj7 65535 obj\n", Some((7, 65535))),
            (b"1 %x\n0 %y\nobj\n", Some((1, 0))),
            (b"1\0\r\n0obj[", Some((1, 0))),
            (b"99999999999 0 obj ", Some((NO_NUMBER, 0))),
            (b"1 0 object", None),
            (b"10 obj", None),
            (b"endobj", None),
        ] {
            let found = PdfStructure::find(text).headers;
            let found = found.first().map(|header| (header.number, header.generation));
            assert_eq!(found, expected, "{}", text.escape_ascii());
        }
    }
}

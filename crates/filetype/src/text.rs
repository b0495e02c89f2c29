//! Properties of texts that the rules do not cover: encodings, JSON, CSV, and interpreters of scripts.

use std::{borrow::Cow, str};

use serde::de::IgnoredAny;

/// Maximum number of bytes of a text that the rules see, as in libmagic: rules for texts search all of it. Also bounds
/// the memory of `pure-magic`, which parses JSON into a tree of up to a hundred times the size of the text.
pub(crate) const TEXT_LEN: usize = 64 << 10;

/// Decodes the beginning of a text to UTF-8 without a byte order mark.
///
/// A text, as defined by libmagic, is encoded in a Unicode encoding, or contains no control characters other than those
/// common in texts. In other encodings, each byte becomes one character: no rule tests for characters outside ASCII.
///
/// Returns a borrowed string if the bytes are valid UTF-8, and `None` if they are not a text.
pub(crate) fn decode_text(head: &[u8]) -> Option<Cow<'_, str>> {
    let bytes = head.get(..TEXT_LEN.min(head.len())).unwrap_or(head);
    let utf32 = |parse: fn([u8; 4]) -> u32, rest: &[u8]| {
        let chars = rest.as_chunks().0.iter().map(|unit| char::from_u32(parse(*unit)));
        let text = chars.collect::<Option<String>>()?;
        text.chars().all(is_text).then_some(Cow::Owned(text))
    };
    let utf16 = |parse: fn([u8; 2]) -> u16, rest: &[u8]| {
        let units = rest.as_chunks().0.iter().map(|unit| parse(*unit));
        let mut chars = char::decode_utf16(units).collect::<Vec<_>>();
        // The last character may be incomplete if the text was cut.
        if chars.last().is_some_and(Result::is_err) && rest.len() + 4 >= TEXT_LEN {
            chars.pop();
        }
        let text = chars.into_iter().collect::<Result<String, _>>().ok()?;
        text.chars().all(is_text).then_some(Cow::Owned(text))
    };
    if let Some(rest) = bytes.strip_prefix(b"\xff\xfe\0\0") {
        return utf32(u32::from_le_bytes, rest);
    }
    if let Some(rest) = bytes.strip_prefix(b"\0\0\xfe\xff") {
        return utf32(u32::from_be_bytes, rest);
    }
    let little_endian = bytes.strip_prefix(b"\xff\xfe");
    let big_endian = bytes.strip_prefix(b"\xfe\xff");
    if let Some(text) = little_endian
        .and_then(|rest| utf16(u16::from_le_bytes, rest))
        .or_else(|| big_endian.and_then(|rest| utf16(u16::from_be_bytes, rest)))
    {
        return Some(text);
    }
    if !bytes.iter().all(|b| is_text(char::from(*b))) {
        return None;
    }
    Some(match str::from_utf8(trim_partial_char(bytes)) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|b| char::from(*b)).collect()),
    })
}

/// Returns whether a character or byte occurs in texts according to libmagic: bell to carriage return, escape, and
/// characters that are printable in some encoding.
fn is_text(c: char) -> bool {
    matches!(u32::from(c), 7..=13 | 27 | 32..=126 | 128..=0xfffd | 0x1_0000..)
}

/// Removes a partial character at the end, if the bytes are otherwise valid UTF-8.
pub(crate) fn trim_partial_char(bytes: &[u8]) -> &[u8] {
    match str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            bytes.get(..error.valid_up_to()).unwrap_or(bytes)
        }
        _ => bytes,
    }
}

/// Returns the MIME type of JSON: `application/json` if `head` is one object or array, `application/x-ndjson` if a
/// second JSON value follows, otherwise `None`.
///
/// `head` is the beginning of a file of `size` bytes. JSON that is valid to the end of `head` counts as valid. Parses
/// without building values.
pub(crate) fn detect_json(head: &[u8], size: u64) -> Option<&'static str> {
    if !matches!(head.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return None;
    }
    let mut values = serde_json::Deserializer::from_slice(head).into_iter::<IgnoredAny>().take(2);
    let is_cut = size > head.len() as u64;
    let is_valid = |result: &Result<_, serde_json::Error>| {
        result.as_ref().map_or_else(|error| is_cut && error.is_eof(), |_| true)
    };
    match (values.next()?, values.next()) {
        (first, None) if is_valid(&first) => Some("application/json"),
        (Ok(_), Some(second)) if is_valid(&second) => Some("application/x-ndjson"),
        _ => None,
    }
}

/// Returns whether a text is CSV: lines with the same number of columns, three or more. Examines ten lines. Commas and
/// line feeds within quotes do not count. The same as in libmagic (`is_csv.c`).
pub(crate) fn is_csv(text: &[u8]) -> bool {
    const MAX_LINES: usize = 10;
    let mut is_quoted = false;
    let (mut separators, mut expected, mut lines) = (0_usize, 0_usize, 0_usize);
    for byte in text {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => separators += 1,
            b'\n' if !is_quoted => {
                lines += 1;
                if lines == MAX_LINES {
                    return expected > 1 && separators == expected;
                }
                if separators == 0 || expected != 0 && separators != expected {
                    return false;
                }
                expected = separators;
                separators = 0;
            }
            _ => {}
        }
    }
    expected > 1 && lines > 1
}

/// Returns the file name of the interpreter in the first line of a script. Skips `env`.
pub(crate) fn interpreter(script: &[u8]) -> Option<&[u8]> {
    let line = script.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut next_program = || words.next()?.rsplit(|b| *b == b'/').next();
    match next_program() {
        Some(b"env") => next_program(),
        program => program,
    }
}

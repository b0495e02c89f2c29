//! `data:` URLs that are percent-encoded, RFC 2397.

use std::io::{self, Read};

/// Maximum length of the media type, bytes.
const MAX_TYPE: usize = 100;

/// Where the encoded data of a URL are, relative to the colon.
pub(super) struct DataUrl {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether the data contain an encoded `<`. Other text has no active content that browsers display.
    pub(super) has_tag: bool,
}

/// Parses a URL of the scheme `scheme`; `rest` begins with the colon. Returns `None` for data in base64.
pub(super) fn data_url(scheme: &[u8], rest: &[u8]) -> Option<DataUrl> {
    if !scheme.last_chunk::<4>()?.eq_ignore_ascii_case(b"data") {
        return None;
    }
    let is_end =
        |byte: &u8| matches!(byte, b'"' | b'\'' | b')' | b'`') || byte.is_ascii_whitespace();
    let is_end_of_type = |byte: &u8| *byte == b',' || is_end(byte);
    let comma = rest.iter().take(MAX_TYPE).position(is_end_of_type)?;
    (rest.get(comma) == Some(&b',')).then_some(())?;
    let media_type = rest.get(..comma)?;
    if media_type.last_chunk::<6>().is_some_and(|last| last.eq_ignore_ascii_case(b"base64")) {
        return None;
    }
    let data = rest.get(comma + 1..)?;
    let length = data.iter().position(is_end).unwrap_or(data.len());
    let mut triples = data.get(..length)?.windows(3);
    let has_tag = triples.any(|triple| triple.eq_ignore_ascii_case(b"%3c"));
    Some(DataUrl { start: comma + 1, end: comma + 1 + length, has_tag })
}

/// Decodes percent-encoded bytes.
pub(super) struct PercentDecoded<'a> {
    rest: &'a [u8],
}

impl<'a> PercentDecoded<'a> {
    pub(super) fn new(encoded: &'a [u8]) -> Self {
        Self { rest: encoded }
    }

    fn next_byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        let encoded = || {
            let (digits, rest) = rest.split_at_checked(2)?;
            let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            Some((byte, rest))
        };
        let decoded = if *first == b'%' { encoded() } else { None };
        let (byte, rest) = decoded.unwrap_or((*first, rest));
        self.rest = rest;
        Some(byte)
    }
}

impl Read for PercentDecoded<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        for byte in output {
            let Some(decoded) = self.next_byte() else { break };
            *byte = decoded;
            written += 1;
        }
        Ok(written)
    }
}

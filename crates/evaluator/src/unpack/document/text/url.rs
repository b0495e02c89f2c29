//! `data:` URLs that are percent-encoded, RFC 2397.

use std::io::{self, Read};

use super::base64::percent_encoded;

/// Maximum length of the media type, bytes.
const MAX_TYPE: usize = 100;

/// Where the encoded data of a URL are, relative to the colon.
pub(super) struct DataUrl {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether bytes of the data are encoded. Other data are examined as they are.
    pub(super) is_encoded: bool,
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
    if media_type
        .trim_ascii_end()
        .last_chunk::<6>()
        .is_some_and(|last| last.eq_ignore_ascii_case(b"base64"))
    {
        return None;
    }
    let data = rest.get(comma + 1..)?;
    let length = data.iter().position(is_end).unwrap_or(data.len());
    let mut parts = data.get(..length)?.split(|byte| *byte == b'%').skip(1);
    let is_encoded = parts.any(|part| percent_encoded(part).is_some());
    Some(DataUrl { start: comma + 1, end: comma + 1 + length, is_encoded })
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
        let encoded = || Some((percent_encoded(rest)?, rest.get(2..)?));
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

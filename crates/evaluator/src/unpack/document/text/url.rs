//! `data:` URLs that are percent-encoded, RFC 2397.

use super::{base64::percent_encoded, escapes::EscapesDecoded};

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
pub(super) fn decode_percent(encoded: &[u8]) -> EscapesDecoded<'_> {
    EscapesDecoded::new(encoded, b'%', |rest| Some((percent_encoded(rest)?, 2)))
}

//! Text strings, ISO 32000-2, 7.9.2.2.

/// Converts UTF-16 with a byte order mark to UTF-8, and removes the byte order mark of UTF-8. Other strings are
/// returned as they are: `PDFDocEncoding` contains ASCII.
pub(super) fn to_utf8(string: Vec<u8>) -> Vec<u8> {
    let decode = |from: fn([u8; 2]) -> u16, bytes: &[u8]| {
        let (pairs, _odd) = bytes.as_chunks::<2>();
        let units = pairs.iter().map(|pair| from(*pair));
        let text: String = char::decode_utf16(units)
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        text.into_bytes()
    };
    match string.as_slice() {
        [0xfe, 0xff, rest @ ..] => decode(u16::from_be_bytes, rest),
        [0xff, 0xfe, rest @ ..] => decode(u16::from_le_bytes, rest),
        [0xef, 0xbb, 0xbf, rest @ ..] => rest.to_vec(),
        _ => string,
    }
}

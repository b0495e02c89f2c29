//! Text form of digests.

/// Formats a digest as lower-case hexadecimal.
pub(crate) fn hex(digest: &[u8; 32]) -> String {
    let mut text = String::with_capacity(2 * digest.len());
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    text
}

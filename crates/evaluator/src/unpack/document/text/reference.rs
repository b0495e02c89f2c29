//! Character references of HTML and XML that hide base64 or the scheme of a URL.

use memchr::memchr;

use super::escapes::EscapesDecoded;

/// Maximum length of a reference, bytes. It may have any number of leading zeros.
const MAX_REFERENCE: usize = 64;

/// Names of the characters that URLs with base64 contain.
const NAMES: [(&[u8], u8); 9] = [
    (b"comma;", b','),
    (b"semi;", b';'),
    (b"colon;", b':'),
    (b"sol;", b'/'),
    (b"plus;", b'+'),
    (b"equals;", b'='),
    (b"lowbar;", b'_'),
    (b"Tab;", b'\t'),
    (b"NewLine;", b'\n'),
];

/// Parses the reference to an ASCII character behind `&`. Returns its length as well.
fn reference(bytes: &[u8]) -> Option<(u8, usize)> {
    let Some(number) = bytes.strip_prefix(b"#") else {
        let (name, character) = NAMES.iter().find(|(name, _)| bytes.starts_with(name))?;
        return Some((*character, name.len()));
    };
    let (radix, digits, prefix) = match number {
        [b'x' | b'X', digits @ ..] => (16, digits, 2),
        _ => (10, number, 1),
    };
    let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
    let length = digits.iter().take(MAX_REFERENCE).take_while(is_digit).count();
    let (digits, rest) = digits.split_at_checked(length)?;
    let digits = str::from_utf8(digits).ok()?.trim_start_matches('0');
    let character = u8::from_str_radix(digits, radix).ok().filter(u8::is_ascii)?;
    // Browsers accept a reference without semicolon.
    Some((character, prefix + length + usize::from(rest.first() == Some(&b';'))))
}

/// Returns whether a text contains a reference to a character that programs hardly ever escape, or a name of one.
pub(super) fn has_references(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(position) = memchr(b'&', rest) {
        rest = rest.get(position + 1..).unwrap_or_default();
        if let Some((character, _)) = reference(rest)
            && (character.is_ascii_alphanumeric()
                || matches!(
                    character,
                    b',' | b';' | b':' | b'+' | b'/' | b'=' | b'_' | b'\t' | b'\x0c'
                ))
        {
            return true;
        }
    }
    false
}

/// Decodes references to ASCII characters.
pub(super) fn decode_references(text: &[u8]) -> EscapesDecoded<'_> {
    EscapesDecoded::new(text, b'&', reference)
}

//! `Content-Disposition` (RFC 6266, RFC 8187). The homeserver's value is passed on unchanged if it is well
//! formed and does not display active content inline; otherwise a new value with the same file name is built.

use std::{borrow::Cow, fmt::Write as _};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::header::HeaderValue;

/// Types that are safe to display inline: Matrix specification v1.12, client-server API, "Serving inline content".
const INLINE_TYPES: &[&str] = &[
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// Maximum length of a file name, in bytes. Common file systems allow at most 255.
const MAX_NAME_LENGTH: usize = 255;

/// Characters to percent-encode: all but `attr-char` (RFC 8187, section 3.2.1).
const EXT_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Returns the disposition of a response. `upstream` is the homeserver's value, `essence` the served media type
/// without parameters (`image/png`), `name` the file name in the request path.
pub(crate) fn content_disposition(
    upstream: Option<&HeaderValue>,
    essence: &str,
    name: Option<&str>,
) -> HeaderValue {
    let safe = INLINE_TYPES.iter().any(|known| known.eq_ignore_ascii_case(essence));
    let parsed = upstream.map(|value| ParsedDisposition::parse(value.as_bytes()));
    let requested = parsed.as_ref().map(|parsed| parsed.disposition);
    if let (Some(value), Some(parsed), None) = (upstream, &parsed, name) {
        let acceptable = match parsed.disposition {
            DispositionType::Inline => safe,
            DispositionType::Attachment => true,
            DispositionType::Other => false,
        };
        if acceptable && parsed.well_formed {
            return value.clone();
        }
    }
    let inline = safe && matches!(requested, None | Some(DispositionType::Inline));
    let upstream_name = parsed.and_then(|parsed| parsed.name);
    let name = name.map(str::to_owned).or(upstream_name);
    build(inline, name.as_deref())
}

/// Returns the file name in a value: arbitrary text.
pub(crate) fn file_name(value: &HeaderValue) -> Option<String> {
    ParsedDisposition::parse(value.as_bytes()).name
}

fn build(inline: bool, name: Option<&str>) -> HeaderValue {
    let mut value = if inline { "inline" } else { "attachment" }.to_owned();
    if let Some(name) = name.map(sanitize).filter(|name| !name.is_empty()) {
        let ascii: String = name.chars().map(|c| if is_unambiguous(c) { c } else { '_' }).collect();
        let _ = write!(value, "; filename=\"{ascii}\"");
        if ascii != name {
            let _ = write!(value, "; filename*=UTF-8''{}", utf8_percent_encode(&name, EXT_VALUE));
        }
    }
    HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

/// Maximum length of an extension that [`shorten`] keeps, in bytes, including the dot.
const MAX_EXTENSION_LENGTH: usize = 16;

/// Returns a value of at most `limit` bytes: `value` itself, or one with the same type, and the beginning and the
/// extension of the file name. `limit` has to leave room for the type and for an extension.
pub(super) fn shorten(value: HeaderValue, limit: usize) -> HeaderValue {
    if value.len() <= limit {
        return value;
    }
    let ParsedDisposition { disposition, name, .. } = ParsedDisposition::parse(value.as_bytes());
    let is_inline = disposition == DispositionType::Inline;
    let name = name.unwrap_or_default();
    let (stem, extension) = match name.rfind('.').and_then(|dot| name.split_at_checked(dot)) {
        Some((stem, extension)) if extension.len() <= MAX_EXTENSION_LENGTH => (stem, extension),
        _ => (&*name, ""),
    };
    let mut stem = sanitize_within(stem, MAX_NAME_LENGTH - extension.len());
    loop {
        let shortened = build(is_inline, Some(&format!("{stem}{extension}")));
        if shortened.len() <= limit || stem.pop().is_none() {
            return shortened;
        }
    }
}

/// Removes control characters and truncates to [`MAX_NAME_LENGTH`].
fn sanitize(name: &str) -> String {
    sanitize_within(name, MAX_NAME_LENGTH)
}

/// Removes control characters and truncates to `limit` bytes.
fn sanitize_within(name: &str, limit: usize) -> String {
    let mut sanitized = String::new();
    for c in name.chars().filter(|c| !c.is_control()) {
        if sanitized.len() + c.len_utf8() > limit {
            break;
        }
        sanitized.push(c);
    }
    sanitized
}

/// Returns whether all clients parse the character in a quoted string the same way. Some decode `%`, and some
/// treat `\` as a part of the name (RFC 6266, appendix D).
fn is_unambiguous(c: char) -> bool {
    c == ' ' || (c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%'))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DispositionType {
    Inline,
    Attachment,
    Other,
}

/// Leniently parsed value.
#[derive(PartialEq, Eq, Debug)]
struct ParsedDisposition {
    disposition: DispositionType,
    name: Option<String>,
    /// Whether the whole value follows the grammar.
    well_formed: bool,
}

impl ParsedDisposition {
    fn parse(value: &[u8]) -> Self {
        // Each byte becomes one ISO-8859-1 character, as in RFC 6266 for `filename`. `recover_utf8` below handles
        // raw UTF-8.
        let text: String = value.iter().map(|&byte| char::from(byte)).collect();
        let mut parser = Parser(text.trim_matches(OWS));
        let disposition = parser.token();
        let mut well_formed = !disposition.is_empty();
        let (mut plain, mut extended, mut malformed) = (None, None, None);
        let mut names = Vec::new();
        while parser.skip(';') {
            let name = parser.token().to_ascii_lowercase();
            let (value, valid) = parser.value(&name);
            well_formed &= valid && !name.is_empty() && !names.contains(&name);
            match &*name {
                "filename" if plain.is_none() => plain = Some(recover_utf8(value)),
                "filename*" if extended.is_none() => {
                    extended = decode_extended(&value).filter(|name| !name.is_empty());
                    if extended.is_none() {
                        well_formed = false;
                        malformed = malformed.or_else(|| recover_extended(&value));
                    }
                }
                _ => {}
            }
            names.push(name);
        }
        let disposition = match disposition.to_ascii_lowercase().as_str() {
            "inline" => DispositionType::Inline,
            "attachment" => DispositionType::Attachment,
            _ => DispositionType::Other,
        };
        let well_formed = well_formed && parser.0.is_empty();
        Self { disposition, name: extended.or(plain).or(malformed), well_formed }
    }
}

/// Optional whitespace (RFC 9110, section 5.6.3).
const OWS: [char; 2] = [' ', '\t'];

/// Decodes UTF-8 from text whose characters are single bytes; returns other text unchanged.
fn recover_utf8(text: String) -> String {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or(text)
}

/// Decodes an `ext-value` (RFC 8187, section 3.2): charset, language, percent-encoded text.
fn decode_extended(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
    let well_formed = text.bytes().all(|byte| byte == b'%' || is_attr_char(byte));
    if !well_formed {
        return None;
    }
    let bytes = percent_decode_str(text);
    if charset.eq_ignore_ascii_case("utf-8") {
        bytes.decode_utf8().ok().map(Cow::into_owned)
    } else if charset.eq_ignore_ascii_case("iso-8859-1") {
        Some(bytes.map(char::from).collect())
    } else {
        None
    }
}

/// Recovers the name from a malformed `ext-value`, such as `utf-8"x"`, `"x"` or `x`: removes the charset, the language
/// and quotes as far as they are present.
fn recover_extended(value: &str) -> Option<String> {
    let has_charset = |charset: &&str| {
        let (prefix, rest) = value.split_at_checked(charset.len()).unwrap_or_default();
        prefix.eq_ignore_ascii_case(charset) && rest.starts_with(['\'', '"'])
    };
    let charset = ["utf-8", "iso-8859-1"].into_iter().find(has_charset);
    let text = value.get(charset.map_or(0, str::len)..)?;
    let text = match text.strip_prefix('\'').filter(|_| charset.is_some()) {
        // A language, then the text; or the text alone.
        Some(rest) => match rest.split_once('\'') {
            Some((_, text)) if !text.is_empty() => text,
            Some((text, _)) => text,
            None => rest,
        },
        None => text,
    };
    let text = text.trim_matches(['"', ' ', '\t']);
    let bytes: Vec<u8> = percent_decode_str(&recover_utf8(text.to_owned())).collect();
    let name = String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned());
    Some(name).filter(|name| !name.is_empty())
}

fn is_attr_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte)
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// Parser over the remaining text.
struct Parser<'a>(&'a str);

impl<'a> Parser<'a> {
    /// Consumes the separator and whitespace around it; returns whether the separator was present.
    fn skip(&mut self, separator: char) -> bool {
        match self.0.trim_start_matches(OWS).strip_prefix(separator) {
            Some(rest) => {
                self.0 = rest.trim_start_matches(OWS);
                true
            }
            None => false,
        }
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.0.split_at_checked(length).unwrap_or((self.0, ""));
        self.0 = rest;
        taken
    }

    fn token(&mut self) -> &'a str {
        self.take(self.0.find(|c| !is_token_char(c)).unwrap_or(self.0.len()))
    }

    /// Consumes a parameter's value and returns it with whether it follows the grammar. A malformed value
    /// extends to the next `;`, since some senders omit the quotes around names with spaces.
    fn value(&mut self, name: &str) -> (String, bool) {
        if !self.skip('=') {
            self.take(self.0.find(';').unwrap_or(self.0.len()));
            return (String::new(), false);
        }
        if let Some((value, rest)) = self.0.strip_prefix('"').and_then(unquote) {
            self.0 = rest;
            let trailing = self.take(rest.find(';').unwrap_or(rest.len()));
            // An `ext-value` is never quoted.
            return (value, trailing.trim_matches(OWS).is_empty() && !name.ends_with('*'));
        }
        let raw = self.take(end_of_value(self.0)).trim_matches(OWS);
        let valid = !raw.is_empty() && raw.chars().all(is_token_char);
        (raw.to_owned(), valid)
    }
}

/// Returns the position of the first `;` outside of quotes. Quotes that are not closed count for nothing.
fn end_of_value(text: &str) -> usize {
    let mut quoted = false;
    let outside = text.find(|c| {
        quoted ^= c == '"';
        c == ';' && !quoted
    });
    let end = outside.unwrap_or(text.len());
    let is_closed = text.get(..end).is_none_or(|value| value.matches('"').count() % 2 == 0);
    if is_closed { end } else { text.find(';').unwrap_or(text.len()) }
}

/// Returns the text up to the closing quote, unescaped, and the text after it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests;

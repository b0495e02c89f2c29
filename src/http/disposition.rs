//! `Content-Disposition` (RFC 6266, RFC 8187): the homeserver's passes unchanged where it is well
//! formed and shows nothing inline that could act in a page; else one is made anew with its name.
//! Knows header values and media types, nothing of requests.

use std::{borrow::Cow, fmt::Write as _};

use axum::http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Matrix specification v1.12, client-server API, "Serving inline content".
const INLINE: &[&str] = &[
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

/// Bytes of a file name, more than file systems take.
const MAX_NAME: usize = 255;

/// RFC 8187, `attr-char`.
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

/// The disposition of an answer: `upstream` is the homeserver's, `essence` the type that is served
/// (`image/png`), `name` one that the client asks for in the path.
pub(super) fn of(upstream: Option<&HeaderValue>, essence: &str, name: Option<&str>) -> HeaderValue {
    let safe = INLINE.iter().any(|known| known.eq_ignore_ascii_case(essence));
    let parsed = upstream.map(|value| Parsed::of(value.as_bytes()));
    let wanted = parsed.as_ref().map(|parsed| parsed.kind);
    if let (Some(value), Some(parsed), None) = (upstream, &parsed, name) {
        let harmless = match parsed.kind {
            Kind::Inline => safe,
            Kind::Attachment => true,
            Kind::Other => false,
        };
        if harmless && parsed.well_formed {
            return value.clone();
        }
    }
    let inline = safe && matches!(wanted, None | Some(Kind::Inline));
    let kept = parsed.and_then(|parsed| parsed.name);
    let name = name.map(str::to_owned).or(kept);
    build(inline, name.as_deref())
}

fn build(inline: bool, name: Option<&str>) -> HeaderValue {
    let kind = if inline { "inline" } else { "attachment" };
    let mut value = kind.to_owned();
    if let Some(name) = name.map(clean).filter(|name| !name.is_empty()) {
        let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        let _ = write!(value, "; filename=\"{plain}\"");
        if plain != name {
            let _ = write!(value, "; filename*=UTF-8''{}", utf8_percent_encode(&name, EXT_VALUE));
        }
    }
    HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

/// Without control characters, and of a bounded length.
fn clean(name: &str) -> String {
    let mut clean = String::new();
    for c in name.chars().filter(|c| !c.is_control()) {
        if clean.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        clean.push(c);
    }
    clean
}

/// What every client reads alike between quotes; some decode `%` there, and some take `\` for a
/// character of the name (RFC 6266, appendix D).
fn is_plain(c: char) -> bool {
    c == ' ' || (c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%'))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Inline,
    Attachment,
    Other,
}

/// What could be read of a value; `well_formed` says that it follows the grammar.
#[derive(PartialEq, Eq, Debug)]
struct Parsed {
    kind: Kind,
    name: Option<String>,
    well_formed: bool,
}

impl Parsed {
    fn of(value: &[u8]) -> Self {
        // Every byte is a character of ISO-8859-1, as RFC 6266 reads a plain `filename`; UTF-8 that
        // was put there raw is found again below.
        let text: String = value.iter().map(|&byte| char::from(byte)).collect();
        let mut rest = Rest(text.trim_matches(OWS));
        let kind = rest.token();
        let mut well_formed = !kind.is_empty();
        let (mut plain, mut extended) = (None, None);
        let mut names = Vec::new();
        while rest.skip(';') {
            let name = rest.token().to_ascii_lowercase();
            let (value, good) = rest.value(&name);
            well_formed &= good && !name.is_empty() && !names.contains(&name);
            match &*name {
                "filename" if plain.is_none() => plain = Some(utf8_again(value)),
                "filename*" if extended.is_none() => {
                    let decoded = decode_extended(&value);
                    well_formed &= decoded.is_some();
                    extended = decoded;
                }
                _ => {}
            }
            names.push(name);
        }
        let kind = match kind.to_ascii_lowercase().as_str() {
            "inline" => Kind::Inline,
            "attachment" => Kind::Attachment,
            _ => Kind::Other,
        };
        Self { kind, name: extended.or(plain), well_formed: well_formed && rest.0.is_empty() }
    }
}

const OWS: [char; 2] = [' ', '\t'];

fn utf8_again(text: String) -> String {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or(text)
}

/// RFC 8187, `ext-value`: charset, language, percent-encoded text.
fn decode_extended(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
    let well_encoded = text.bytes().all(|byte| byte == b'%' || is_attr_char(byte));
    if !well_encoded {
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

fn is_attr_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte)
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// What is still to be read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
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

    /// A parameter's value, and whether it follows the grammar. One that does not reaches to the
    /// next `;`: senders forget the quotes around names with spaces.
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
        let raw = self.take(self.0.find(';').unwrap_or(self.0.len())).trim_matches(OWS);
        let good = !raw.is_empty() && raw.chars().all(is_token_char);
        (raw.to_owned(), good)
    }
}

/// The text up to the closing quote, and what follows it.
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_text(upstream: &[u8], essence: &str, name: Option<&str>) -> String {
        let upstream = HeaderValue::from_bytes(upstream).unwrap();
        let made = of(Some(&upstream), essence, name);
        made.as_bytes().iter().map(|&byte| char::from(byte)).collect()
    }

    #[test]
    fn a_harmless_value_passes_unchanged() {
        for value in [
            "inline",
            "INLINE; Filename=a.png",
            "inline; filename=\"a \\\"b\\\" c.png\"",
            "inline;filename=\"a;b.png\" ; foo=bar",
            "attachment; filename=\"x\"; filename*=utf-8''%e2%82%ac%20rates",
            "attachment; filename*=iso-8859-1'en'%A3%20rates",
        ] {
            assert_eq!(of_text(value.as_bytes(), "image/png", None), value);
        }
        assert_eq!(
            of_text(b"attachment; filename=a.svg", "image/svg+xml", None),
            "attachment; filename=a.svg"
        );
    }

    #[test]
    fn nothing_that_can_act_in_a_page_is_inline() {
        for essence in ["text/html", "image/svg+xml", "application/octet-stream", "application/pdf"]
        {
            assert_eq!(
                of_text(b"inline; filename=x.html", essence, None),
                "attachment; filename=\"x.html\"",
                "{essence}"
            );
            assert_eq!(of(None, essence, None), "attachment");
        }
        assert_eq!(of(None, "image/png", None), "inline");
        assert_eq!(
            of_text(b"form-data; filename=x", "image/png", None),
            "attachment; filename=\"x\""
        );
    }

    #[test]
    fn a_malformed_value_is_rebuilt_with_its_name() {
        for (value, expected) in [
            (&b"inline; filename=my cat.png"[..], "inline; filename=\"my cat.png\""),
            (b"inline; filename=a.png;", "inline; filename=\"a.png\""),
            (b"inline; filename=a; filename=b", "inline; filename=\"a\""),
            (b"inline; filename=\"open", "inline; filename=\"_open\"; filename*=UTF-8''%22open"),
            (b"inline, attachment; filename=a", "inline"),
            (b"", "attachment"),
            (b"; filename=a", "attachment; filename=\"a\""),
            (
                "inline; filename=na\u{ef}ve.png".as_bytes(),
                "inline; filename=\"na_ve.png\"; filename*=UTF-8''na%C3%AFve.png",
            ),
            (b"inline; filename*=utf-8''%ff; filename=b", "inline; filename=\"b\""),
            (b"inline; filename*=\"utf-8''a\"", "inline; filename=\"a\""),
        ] {
            let shown = String::from_utf8_lossy(value).into_owned();
            assert_eq!(of_text(value, "image/png", None), expected, "{shown}");
        }
    }

    #[test]
    fn the_name_in_the_path_replaces_the_homeservers() {
        assert_eq!(
            of_text(b"inline; filename=a.png", "image/png", Some("b\r\nSet-Cookie: x.png")),
            "inline; filename=\"bSet-Cookie: x.png\""
        );
        assert_eq!(of_text(b"attachment", "image/png", Some("b")), "attachment; filename=\"b\"");
        assert_eq!(
            of(None, "text/html", Some("\"; x=\"\\%41")),
            "attachment; filename=\"_; x=___41\"; filename*=UTF-8''%22%3B%20x%3D%22%5C%2541"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_made_is_well_formed_and_keeps_the_name(
            upstream in prop::collection::vec(any::<u8>(), 0..60), name in "\\PC{0,60}", safe: bool,
        ) {
            let essence = if safe { "image/png" } else { "text/html" };
            let upstream = HeaderValue::from_bytes(&upstream).ok();
            for name in [None, Some(&*name)] {
                let made = of(upstream.as_ref(), essence, name);
                let parsed = Parsed::of(made.as_bytes());
                prop_assert!(parsed.well_formed, "{:?}", made);
                prop_assert!(safe || parsed.kind == Kind::Attachment);
                if let Some(name) = name {
                    prop_assert_eq!(parsed.name.unwrap_or_default(), clean(name));
                }
            }
        }

        #[test]
        fn a_parameter_that_looks_right_is_read(text in "[a-z]{1,8}(; ?[a-z*]{1,9}=[ -~]{0,12}){0,3}") {
            let made = of(Some(&HeaderValue::from_str(&text).unwrap()), "image/png", None);
            prop_assert!(Parsed::of(made.as_bytes()).well_formed, "{:?}", made);
        }
    }
}

//! Tags of XML and HTML.

use std::borrow::Cow;

use memchr::{memchr, memmem};

/// Maximum length of a reference to a character, bytes. It may have any number of leading zeros.
const MAX_REFERENCE: usize = 64;

/// Names of references: those of XML, and those of HTML that hide the scheme of a URL.
const NAMES: [(&[u8], &[u8]); 9] = [
    (b"amp;", b"&"),
    (b"lt;", b"<"),
    (b"gt;", b">"),
    (b"quot;", b"\""),
    (b"apos;", b"'"),
    (b"colon;", b":"),
    (b"Tab;", b"\t"),
    (b"NewLine;", b"\n"),
    (b"lpar;", b"("),
];

/// A part of a text in XML or HTML.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MarkupToken<'a> {
    Start {
        name: &'a [u8],
        attributes: &'a [u8],
    },
    End(&'a [u8]),
    /// Text, with references, or the content of a CDATA section.
    Text(&'a [u8]),
    /// Processing instruction or declaration, without the angle brackets.
    Declaration(&'a [u8]),
}

/// Reads the parts of a text. Comments are omitted.
pub(super) struct MarkupReader<'a> {
    rest: &'a [u8],
    /// Whether a declaration or instruction without end was found. Further ones end at the next `>`, because a search for
    /// the end of each would take quadratic time.
    is_malformed: bool,
}

impl<'a> MarkupReader<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text, is_malformed: false }
    }

    /// Returns the bytes before `end`, and continues behind `end`; all bytes if it is missing.
    fn until(&mut self, start: usize, end: &[u8]) -> &'a [u8] {
        let inner = self.rest.get(start..).unwrap_or_default();
        let length = memmem::find(inner, end);
        let (inner, rest) = inner.split_at(length.unwrap_or(inner.len()));
        self.rest = rest.get(end.len()..).unwrap_or_default();
        inner
    }

    fn declaration(&mut self) -> MarkupToken<'a> {
        let end = if self.is_malformed { None } else { declaration_end(self.rest) };
        self.is_malformed |= end.is_none();
        let end = end.or_else(|| memchr(b'>', self.rest)).unwrap_or(self.rest.len());
        let (declaration, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        MarkupToken::Declaration(declaration.get(1..).unwrap_or_default())
    }

    fn tag(&mut self) -> MarkupToken<'a> {
        let inner = self.rest.get(1..).unwrap_or_default();
        let (tag, rest) = inner.split_at(tag_end(inner));
        self.rest = rest.get(1..).unwrap_or_default();
        if let Some(tag) = tag.strip_prefix(b"/") {
            return MarkupToken::End(tag.trim_ascii());
        }
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'/';
        let length = tag.iter().position(is_end).unwrap_or(tag.len());
        let (name, attributes) = tag.split_at(length);
        MarkupToken::Start { name, attributes }
    }
}

impl<'a> Iterator for MarkupReader<'a> {
    type Item = MarkupToken<'a>;

    fn next(&mut self) -> Option<MarkupToken<'a>> {
        loop {
            match self.rest {
                [] => return None,
                [b'<', b'!', b'-', b'-', ..] => _ = self.until(4, b"-->"),
                [b'<', b'!', rest @ ..] if rest.starts_with(b"[CDATA[") => {
                    return Some(MarkupToken::Text(self.until(9, b"]]>")));
                }
                [b'<', b'?' | b'!', ..] => return Some(self.declaration()),
                [b'<', first, ..]
                    if first.is_ascii_alphabetic() || matches!(first, b'/' | b'_') =>
                {
                    return Some(self.tag());
                }
                [_, rest @ ..] => {
                    let length = memchr(b'<', rest).map_or(self.rest.len(), |length| length + 1);
                    let (text, rest) = self.rest.split_at(length);
                    self.rest = rest;
                    return Some(MarkupToken::Text(text));
                }
            }
        }
    }
}

/// Returns the offset of the end of a processing instruction, or of a declaration, which may contain others in brackets.
fn declaration_end(text: &[u8]) -> Option<usize> {
    if text.starts_with(b"<?") {
        return memmem::find(text, b"?>").map(|end| end + 1);
    }
    let mut position = 1;
    let mut depth = 0_usize;
    loop {
        let rest = text.get(position..)?;
        match rest {
            [b'[', ..] => depth += 1,
            [b']', ..] => depth = depth.saturating_sub(1),
            [b'>', ..] if depth == 0 => return Some(position),
            [b'<', b'!', b'-', b'-', ..] => position += memmem::find(rest, b"-->")?,
            [quote @ (b'"' | b'\''), value @ ..] => {
                // A quotation mark without counterpart is an apostrophe.
                position += memchr(*quote, value).map_or(0, |length| length + 1);
            }
            [] => return None,
            _ => {}
        }
        position += 1;
    }
}

/// Returns the offset of the end of a tag: the first `>` outside of quoted values.
pub(super) fn tag_end(tag: &[u8]) -> usize {
    let mut position = 0;
    let mut is_value = false;
    while let Some(byte) = tag.get(position) {
        match byte {
            b'>' => return position,
            b'"' | b'\'' if is_value => {
                let rest = tag.get(position + 1..).unwrap_or_default();
                let Some(length) = memchr(*byte, rest) else { break };
                position += length + 1;
                is_value = false;
            }
            b'=' => is_value = true,
            byte if byte.is_ascii_whitespace() => {}
            _ => is_value = false,
        }
        position += 1;
    }
    memchr(b'>', tag).unwrap_or(tag.len())
}

/// Names and values of attributes. Values contain references.
pub(super) struct AttributeReader<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for AttributeReader<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let is_blank = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'?' | 0);
        let start = self.0.iter().position(|byte| !is_blank(byte))?;
        let rest = self.0.get(start..)?;
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'=' | b'/');
        // A name may begin with an equals sign.
        let length = rest.iter().skip(1).position(is_end).map_or(rest.len(), |length| length + 1);
        let (name, rest) = rest.split_at(length);
        let Some(value) = rest.trim_ascii_start().strip_prefix(b"=") else {
            self.0 = rest;
            return Some((name, &[]));
        };
        let value = value.trim_ascii_start();
        let (value, rest) = if let [quote @ (b'"' | b'\''), value @ ..] = value {
            let length = memchr(*quote, value).unwrap_or(value.len());
            let (value, rest) = value.split_at(length);
            (value, rest.get(1..).unwrap_or_default())
        } else {
            let length = value.iter().position(u8::is_ascii_whitespace);
            value.split_at(length.unwrap_or(value.len()))
        };
        self.0 = rest;
        Some((name, value))
    }
}

/// Returns a name without its prefix.
pub(super) fn local_name(name: &[u8]) -> &[u8] {
    name.rsplit(|byte| *byte == b':').next().unwrap_or(name)
}

/// Replaces references by their characters.
pub(super) fn decode_references(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'&', text).is_none() {
        return text.into();
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = memchr(b'&', rest) {
        let (before, reference) = rest.split_at(position);
        decoded.extend(before);
        let after = reference.get(1..).unwrap_or_default();
        let named = || {
            let (name, value) = NAMES.iter().find(|(name, _)| after.starts_with(name))?;
            Some((value.to_vec(), name.len()))
        };
        let (character, length) =
            numeric_reference(after).or_else(named).unwrap_or_else(|| (b"&".to_vec(), 0));
        decoded.extend(character);
        rest = after.get(length..).unwrap_or_default();
    }
    decoded.extend(rest);
    decoded.into()
}

/// Parses the reference behind `&`. Returns its length as well. Browsers accept a reference without semicolon.
fn numeric_reference(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (radix, prefix) = match bytes {
        [b'#', b'x' | b'X', ..] => (16, 2),
        [b'#', ..] => (10, 1),
        _ => return None,
    };
    let digits = bytes.get(prefix..)?;
    let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
    let length = digits.iter().take(MAX_REFERENCE).take_while(is_digit).count();
    let (digits, rest) = digits.split_at_checked(length)?;
    let digits = str::from_utf8(digits).ok()?.trim_start_matches('0');
    let character = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
    let length = prefix + length + usize::from(rest.first() == Some(&b';'));
    Some((character.to_string().into_bytes(), length))
}

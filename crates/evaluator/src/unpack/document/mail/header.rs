//! Header fields of a message or part, and what they say about its body.

use super::{
    lines::{MailLine, field_name, is_blank, line_at},
    transfer::{TransferEncoding, hex},
};

/// Maximum length of a field that is interpreted, bytes. Long file names need 1 KiB; mail programs have no limit.
const MAX_FIELD: usize = 1 << 20;

/// A choice between the ways in which mail programs read a message that is not correct: a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HeaderReading(pub(super) u8);

impl HeaderReading {
    /// The last of several fields or parameters applies, and not the first one.
    pub(super) const LAST: Self = Self(1);
    /// A carriage return without a line feed is a line break.
    pub(super) const BARE_RETURN: Self = Self(2);
    /// A line that starts with a boundary is a delimiter, as RFC 2046 section 5.1.1 defines. Otherwise, nothing but white
    /// space may follow.
    pub(super) const PREFIX: Self = Self(4);
    /// Parentheses are part of a value, and not a comment (RFC 822 section 3.4.3).
    pub(super) const NO_COMMENTS: Self = Self(8);

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn toggled(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
}

/// The first and the last field of a name, with folded lines.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct HeaderField<'m> {
    first: Option<&'m [u8]>,
    last: Option<&'m [u8]>,
}

impl<'m> HeaderField<'m> {
    pub(super) fn get(self, reading: HeaderReading) -> Option<&'m [u8]> {
        let value = if reading.has(HeaderReading::LAST) { self.last } else { self.first };
        value.map(|value| value.get(..MAX_FIELD).unwrap_or(value))
    }

    fn add(&mut self, value: &'m [u8]) {
        self.first.get_or_insert(value);
        self.last = Some(value);
    }
}

/// The header of a message or part.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct PartHeader<'m> {
    pub(super) content_type: HeaderField<'m>,
    pub(super) disposition: HeaderField<'m>,
    pub(super) transfer_encoding: HeaderField<'m>,
    pub(super) location: HeaderField<'m>,
    /// Offset of the body, bytes.
    pub(super) body: usize,
    /// Offset of a line in the header that some programs regard as the start of the body: a line that is not a field, or
    /// the line after a line of spaces.
    pub(super) early_body: Option<usize>,
    /// Whether a line contains a carriage return.
    pub(super) has_bare_return: bool,
}

impl<'m> PartHeader<'m> {
    /// Parses a header. Ends at an empty line, or before a delimiter.
    pub(super) fn parse(
        bytes: &'m [u8],
        start: usize,
        bare_return: bool,
        is_delimiter: impl Fn(&[u8]) -> bool,
    ) -> Self {
        let mut header = Self::default();
        let mut position = start;
        // The start of the current field.
        let mut field: Option<MailLine<'m>> = None;
        let mut field_end = start;
        while let Some(line) = line_at(bytes, position, bare_return) {
            if is_delimiter(line.content) {
                break;
            }
            position = line.next;
            if line.content.is_empty() {
                break;
            }
            header.has_bare_return |= line.content.contains(&b'\r');
            let is_continuation = line.content.first().copied().is_some_and(is_blank);
            if is_continuation && line.content.trim_ascii().is_empty() {
                header.early_body.get_or_insert(line.next);
            } else if !is_continuation {
                header.add(bytes, field, field_end);
                field = field_name(line.content).map(|_name| line);
                // A field without name is ignored.
                if field.is_none() && !line.content.starts_with(b":") {
                    header.early_body.get_or_insert(line.start);
                }
            }
            field_end = line.next;
        }
        header.add(bytes, field, field_end);
        header.body = position;
        header
    }

    /// Adds a field with its continuation lines.
    fn add(&mut self, bytes: &'m [u8], first_line: Option<MailLine<'m>>, end: usize) {
        let Some(line) = first_line else { return };
        let Some(name) = field_name(line.content) else { return };
        let field = if name.eq_ignore_ascii_case(b"content-type") {
            &mut self.content_type
        } else if name.eq_ignore_ascii_case(b"content-disposition") {
            &mut self.disposition
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            &mut self.transfer_encoding
        } else if name.eq_ignore_ascii_case(b"content-location") {
            &mut self.location
        } else {
            return;
        };
        let whole = bytes.get(line.start..end).unwrap_or_default();
        let colon = whole.iter().position(|byte| *byte == b':').unwrap_or_default();
        field.add(whole.get(colon.saturating_add(1)..).unwrap_or_default());
    }

    /// Returns what the header says about the body.
    pub(super) fn content(&self, reading: HeaderReading) -> BodyFormat {
        let encoding = self.transfer_encoding.get(reading).map(|value| {
            let parameters = parameters(value, reading);
            parameters
                .first()
                .map_or(TransferEncoding::Identity, |(_, value)| TransferEncoding::parse(value))
        });
        let (media_type, boundary) = match self.content_type.get(reading) {
            Some(value) => (PartType::parse(value, reading), boundary(value, reading)),
            None => (PartType::Missing, None),
        };
        let boundary = boundary.filter(|_| matches!(media_type, PartType::Multipart { .. }));
        BodyFormat {
            media_type,
            boundary,
            encoding: encoding.unwrap_or(TransferEncoding::Identity),
        }
    }

    /// Returns the readings under which the header says something else.
    pub(super) fn ambiguity(&self, reading: HeaderReading) -> u8 {
        if self.content_type.first.is_none() && self.transfer_encoding.first.is_none() {
            return 0;
        }
        let content = self.content(reading);
        let differs = |other: &HeaderReading| self.content(reading.toggled(*other)) != content;
        let readings =
            [HeaderReading::LAST, HeaderReading::NO_COMMENTS].into_iter().filter(differs);
        readings.fold(0, |bits, reading| bits | reading.0)
    }
}

/// What a header says about the body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BodyFormat {
    pub(super) media_type: PartType,
    /// The delimiter of parts without hyphens, if there are parts.
    pub(super) boundary: Option<Vec<u8>>,
    pub(super) encoding: TransferEncoding,
}

/// Media types that matter to unpacking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PartType {
    Missing,
    Text,
    /// A message (RFC 2046 section 5.2.1, RFC 6532).
    Message,
    /// A part of a message that is sent as several messages (RFC 2046 section 5.2.2).
    Partial,
    /// Encrypted by S/MIME (RFC 8551).
    Enveloped,
    /// `is_encrypted`: encrypted by PGP (RFC 3156) or another method. `is_digest`: the parts are messages, if they
    /// have no type (RFC 2046 section 5.1.5).
    Multipart {
        is_encrypted: bool,
        is_digest: bool,
    },
    Other,
}

impl PartType {
    fn parse(value: &[u8], reading: HeaderReading) -> Self {
        let parameters = parameters(value, reading);
        let first = parameters.first().map(|(_, value)| value.as_slice()).unwrap_or_default();
        let name: Vec<u8> =
            first.iter().filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
        let name = name.to_ascii_lowercase();
        match name.as_slice() {
            b"message/rfc822" | b"message/global" | b"message/news" => Self::Message,
            b"message/partial" => Self::Partial,
            b"application/pkcs7-mime" | b"application/x-pkcs7-mime" => {
                let kind = parameters.iter().find(|(name, _)| name == b"smime-type");
                let kind = kind.map(|(_, value)| value.to_ascii_lowercase()).unwrap_or_default();
                let is_enveloped = kind.ends_with(b"enveloped-data");
                if is_enveloped { Self::Enveloped } else { Self::Other }
            }
            name if name.starts_with(b"multipart") => Self::Multipart {
                is_encrypted: name.starts_with(b"multipart/encrypted"),
                is_digest: name.starts_with(b"multipart/digest"),
            },
            name if name.starts_with(b"text/") => Self::Text,
            _ => Self::Other,
        }
    }
}

/// Returns the boundary in a value of `Content-Type`.
fn boundary(value: &[u8], reading: HeaderReading) -> Option<Vec<u8>> {
    let mut sections = Vec::new();
    for (name, value) in parameters(value, reading) {
        let Some(section) = name.strip_prefix(b"boundary") else { continue };
        if !section.is_empty() && !section.starts_with(b"*") {
            continue;
        }
        // RFC 2231: "boundary*1*" is section 1, encoded; "boundary*" is encoded.
        let is_encoded = section.ends_with(b"*");
        let section = section.strip_suffix(b"*").unwrap_or(section);
        let number = section.strip_prefix(b"*").unwrap_or(section);
        let number = str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        sections.push((
            number.unwrap_or(0_u32),
            if is_encoded { decode_percent(&value) } else { value },
        ));
    }
    if sections.is_empty() {
        return boundary_without_semicolon(value);
    }
    if reading.has(HeaderReading::LAST) {
        sections.reverse();
    }
    sections.sort_by_key(|(number, _)| *number);
    sections.dedup_by_key(|(number, _)| *number);
    let boundary: Vec<u8> = sections.into_iter().flat_map(|(_, value)| value).collect();
    non_empty(&boundary)
}

/// Returns the boundary where the semicolon before the parameter is missing.
fn boundary_without_semicolon(value: &[u8]) -> Option<Vec<u8>> {
    let name = b"boundary";
    let position =
        value.windows(name.len()).position(|window| window.eq_ignore_ascii_case(name))?;
    let rest = value.get(position.saturating_add(name.len())..)?.trim_ascii_start();
    let rest = rest.strip_prefix(b"=")?.trim_ascii_start();
    let end = |byte: &u8| matches!(byte, b'"' | b';' | b'\r' | b'\n');
    let boundary = rest.strip_prefix(b"\"").unwrap_or(rest).split(end).next()?;
    non_empty(boundary)
}

/// Returns the boundary without white space at its end, which is not part of delimiters.
fn non_empty(boundary: &[u8]) -> Option<Vec<u8>> {
    let boundary = boundary.trim_ascii_end();
    (!boundary.is_empty()).then(|| boundary.to_vec())
}

/// Decodes a value with a charset, a language and octets in hexadecimal (RFC 2231 section 4).
fn decode_percent(value: &[u8]) -> Vec<u8> {
    let text = value.splitn(3, |byte| *byte == b'\'').nth(2).unwrap_or(value);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        match after {
            [high, low, after @ ..] if *byte == b'%' => {
                if let (Some(high), Some(low)) = (hex(*high), hex(*low)) {
                    decoded.push(high << 4 | low);
                    rest = after;
                } else {
                    decoded.push(b'%');
                }
            }
            _ => decoded.push(*byte),
        }
    }
    decoded
}

/// Splits a value at semicolons. Returns names in lowercase and values without quotes; the first item has an empty name.
fn parameters(value: &[u8], reading: HeaderReading) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = Vec::new();
    let mut name = Vec::new();
    let mut text = TrimmedText::default();
    let mut comments = 0_u32;
    let (mut in_quotes, mut is_escaped) = (false, false);
    for byte in value {
        let is_literal = std::mem::take(&mut is_escaped);
        match byte {
            b'\r' | b'\n' => {}
            _ if is_literal => text.push(*byte, in_quotes),
            b'\\' if in_quotes || comments > 0 => is_escaped = true,
            b'"' if comments == 0 => in_quotes = !in_quotes,
            _ if in_quotes => text.push(*byte, true),
            b'(' if !reading.has(HeaderReading::NO_COMMENTS) => {
                comments = comments.saturating_add(1);
            }
            b')' if comments > 0 => comments = comments.saturating_sub(1),
            _ if comments > 0 => {}
            b';' => list.push((std::mem::take(&mut name), std::mem::take(&mut text).finish())),
            b'=' if name.is_empty() && !list.is_empty() => {
                name = std::mem::take(&mut text).finish().to_ascii_lowercase();
            }
            _ => text.push(*byte, false),
        }
    }
    list.push((name, text.finish()));
    list
}

/// A name or value, without white space around it that is not in quotes.
#[derive(Default)]
struct TrimmedText {
    bytes: Vec<u8>,
    /// Length up to the last byte that is not white space.
    length: usize,
}

impl TrimmedText {
    fn push(&mut self, byte: u8, in_quotes: bool) {
        if in_quotes || !byte.is_ascii_whitespace() {
            self.bytes.push(byte);
            self.length = self.bytes.len();
        } else if !self.bytes.is_empty() {
            self.bytes.push(byte);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.truncate(self.length);
        self.bytes
    }
}

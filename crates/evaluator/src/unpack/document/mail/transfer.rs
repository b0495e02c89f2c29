//! Transfer encodings (RFC 2045 section 6), as leniently as mail programs decode them.

use std::io::{self, Read};

/// How a part is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum TransferEncoding {
    /// `7bit`, `8bit`, `binary`, unknown encodings, and no encoding.
    Identity,
    Base64,
    QuotedPrintable,
    /// `x-uuencode`, and its other names.
    Uuencode,
}

impl TransferEncoding {
    /// Parses the value of `Content-Transfer-Encoding` without comments.
    pub(super) fn parse(value: &[u8]) -> Self {
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let start = value.iter().position(is_token).unwrap_or(value.len());
        let rest = value.get(start..).unwrap_or_default();
        let end = rest.iter().position(|byte| !is_token(byte)).unwrap_or(rest.len());
        match rest.get(..end).unwrap_or_default().to_ascii_lowercase().as_slice() {
            b"base64" | b"x-base64" => Self::Base64,
            b"quoted-printable" | b"x-quoted-printable" => Self::QuotedPrintable,
            b"x-uuencode" | b"uuencode" | b"x-uue" | b"uue" => Self::Uuencode,
            _ => Self::Identity,
        }
    }
}

/// A decoder that appends some output for each call.
pub(super) trait Decode {
    /// Appends decoded bytes, for some of the input. Returns whether there is more input.
    fn decode(&mut self, output: &mut Vec<u8>) -> bool;
}

/// Reads the output of a decoder.
pub(super) struct Decoding<D> {
    decoder: D,
    /// Output that is not yet read, from `position` on.
    output: Vec<u8>,
    position: usize,
    has_input: bool,
}

impl<D: Decode> Decoding<D> {
    pub(super) fn new(decoder: D) -> Self {
        Self { decoder, output: Vec::new(), position: 0, has_input: true }
    }
}

impl<D: Decode> Read for Decoding<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position >= self.output.len() && self.has_input {
            self.output.clear();
            self.position = 0;
            self.has_input = self.decoder.decode(&mut self.output);
        }
        let mut rest = self.output.get(self.position..).unwrap_or_default();
        let length = rest.read(buffer)?;
        self.position = self.position.saturating_add(length);
        Ok(length)
    }
}

/// Input that is decoded in one call, bytes.
const STEP: usize = 16 * 1024;

/// Removes and returns the next bytes of the input.
fn take_step<'m>(input: &mut &'m [u8]) -> &'m [u8] {
    let (step, rest) = input.split_at(input.len().min(STEP));
    *input = rest;
    step
}

/// Decoder of base64 (RFC 2045 section 6.8). Ignores bytes outside of the alphabet.
pub(super) struct Base64<'m> {
    input: &'m [u8],
    /// Whether the data ends at the first padding. Otherwise, several base64 texts follow each other.
    ends_at_padding: bool,
    /// Bits of an incomplete group, and their characters.
    group: u32,
    length: u8,
    /// Equals signs after the incomplete group.
    padding: u8,
}

impl<'m> Base64<'m> {
    pub(super) fn new(input: &'m [u8], ends_at_padding: bool) -> Self {
        Self { input, ends_at_padding, group: 0, length: 0, padding: 0 }
    }

    fn push(&mut self, value: u8, output: &mut Vec<u8>) {
        self.group = self.group << 6 | u32::from(value);
        self.length = self.length.saturating_add(1);
        self.padding = 0;
        if self.length == 4 {
            let [_, bytes @ ..] = self.group.to_be_bytes();
            output.extend_from_slice(&bytes);
            (self.group, self.length) = (0, 0);
        }
    }

    /// Ends an incomplete group. A single character has too few bits for a byte.
    fn finish(&mut self, output: &mut Vec<u8>) {
        let [_, first, second, _] =
            (self.group << (24 - 6 * u32::from(self.length.min(4)))).to_be_bytes();
        match self.length {
            2 => output.push(first),
            3 => output.extend_from_slice(&[first, second]),
            _ => {}
        }
        (self.group, self.length, self.padding) = (0, 0, 0);
    }
}

impl Decode for Base64<'_> {
    fn decode(&mut self, output: &mut Vec<u8>) -> bool {
        for byte in take_step(&mut self.input) {
            if let Some(value) = base64_value(*byte) {
                self.push(value, output);
            } else if *byte == b'=' && self.length >= 2 {
                // Like Python's `binascii`: fewer equals signs than a group needs are ignored.
                self.padding = self.padding.saturating_add(1);
                if self.length.saturating_add(self.padding) < 4 {
                    continue;
                }
                self.finish(output);
                if self.ends_at_padding {
                    self.input = &[];
                    return false;
                }
            }
        }
        if self.input.is_empty() {
            self.finish(output);
        }
        !self.input.is_empty()
    }
}

fn base64_value(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// What a text in base64 contains besides base64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Base64Defects {
    /// Nothing can be decoded.
    pub(super) is_empty: bool,
    /// Characters follow that are neither base64 nor white space.
    pub(super) has_other_characters: bool,
    /// Base64 follows after padding.
    pub(super) continues_after_padding: bool,
}

impl Base64Defects {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (mut characters, mut is_padded) = (0_usize, false);
        let mut defects =
            Self { is_empty: true, has_other_characters: false, continues_after_padding: false };
        for byte in bytes {
            if base64_value(*byte).is_some() {
                characters = characters.saturating_add(1);
                defects.continues_after_padding |= is_padded;
            } else if *byte == b'=' {
                is_padded |= characters > 0;
            } else {
                defects.has_other_characters |= !byte.is_ascii_whitespace() && *byte != 0;
            }
        }
        defects.is_empty = characters < 2;
        defects
    }
}

/// Decoder of quoted-printable (RFC 2045 section 6.7). Passes invalid sequences unchanged.
pub(super) struct QuotedPrintable<'m> {
    input: &'m [u8],
}

impl<'m> QuotedPrintable<'m> {
    pub(super) fn new(input: &'m [u8]) -> Self {
        Self { input }
    }

    /// Decodes what is after an equals sign, and removes it from the input.
    fn decode_escape(&mut self, output: &mut Vec<u8>) {
        if let [high, low, rest @ ..] = self.input
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            output.push(high << 4 | low);
            self.input = rest;
            return;
        }
        match soft_break(self.input) {
            Some(rest) => self.input = rest,
            None => output.push(b'='),
        }
    }
}

impl Decode for QuotedPrintable<'_> {
    fn decode(&mut self, output: &mut Vec<u8>) -> bool {
        for _ in 0..STEP {
            let step = self.input.get(..STEP).unwrap_or(self.input);
            let end = step.iter().position(|byte| *byte == b'=').unwrap_or(step.len());
            let (text, rest) = self.input.split_at(end);
            output.extend_from_slice(text);
            self.input = rest;
            if let [b'=', rest @ ..] = rest {
                self.input = rest;
                self.decode_escape(output);
            }
            if self.input.is_empty() || output.len() >= STEP {
                break;
            }
        }
        !self.input.is_empty()
    }
}

/// Maximum number of spaces between the equals sign of a soft line break and the line break, which RFC 2045 section 6.7
/// (3) tells decoders to delete. Lines in quoted-printable have at most 76 characters.
const MAX_SPACES: usize = 1000;

/// Returns the text after a soft line break.
fn soft_break(input: &[u8]) -> Option<&[u8]> {
    let spaces =
        input.iter().take(MAX_SPACES).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match input.get(spaces..)? {
        [b'\r', b'\n', rest @ ..] | [b'\n' | b'\r', rest @ ..] => Some(rest),
        rest if rest.is_empty() => Some(rest),
        _ => None,
    }
}

/// Returns the value of a hexadecimal digit. RFC 2045 requires capitals; decoders accept both.
pub(super) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

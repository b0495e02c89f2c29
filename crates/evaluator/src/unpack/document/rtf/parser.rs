//! Groups, control words and data of a document, in one pass.

use std::collections::VecDeque;

use super::{
    destination::{DataKind, MAX_WORD, data_kind, is_destination},
    hex::{HexDecoder, hex_digit},
};

/// Maximum length of a control word with its parameter, bytes. Word takes the rest as text (measured by the authors of
/// oletools).
const MAX_CONTROL: usize = 253;

/// Maximum number of nested destinations in data in hexadecimal digits. Documents have three.
const MAX_NESTED: usize = 1000;

/// Data of a destination.
pub(super) struct HexData {
    pub(super) kind: DataKind,
    pub(super) bytes: Vec<u8>,
}

/// What the current text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TextKind {
    Other,
    /// Data of the innermost open destination.
    Data,
    /// Text of another destination in data.
    Ignored,
}

/// A change of the kind of text in a group.
struct Change {
    /// The group, as the number of groups around it.
    level: usize,
    /// The kind of text after the group.
    outer: TextKind,
}

/// Data whose group is open.
struct OpenData {
    kind: DataKind,
    level: usize,
    hex: HexDecoder,
    /// For objects, with the digits in other destinations, if there are any: whether programs ignore them differs.
    with_ignored: Option<HexDecoder>,
}

/// Reads a document.
pub(super) struct RtfParser<'a> {
    rest: &'a [u8],
    /// Number of open groups.
    level: usize,
    text: TextKind,
    changes: Vec<Change>,
    open: Vec<OpenData>,
    complete: VecDeque<HexData>,
    /// Whether the next control word follows `\*`.
    is_ignorable: bool,
    has_reached_limit: bool,
}

impl<'a> RtfParser<'a> {
    pub(super) fn new(document: &'a [u8]) -> Self {
        Self {
            rest: document,
            level: 0,
            text: TextKind::Other,
            changes: Vec::new(),
            open: Vec::new(),
            complete: VecDeque::new(),
            is_ignorable: false,
            has_reached_limit: false,
        }
    }

    /// Returns whether groups were nested too deeply.
    pub(super) fn has_reached_limit(&self) -> bool {
        self.has_reached_limit
    }

    /// Returns the next data; at the end of the document that of the groups that are open.
    pub(super) fn next_data(&mut self) -> Option<HexData> {
        while self.complete.is_empty() {
            let Some((byte, rest)) = self.rest.split_first() else {
                self.finish();
                break;
            };
            self.rest = rest;
            match byte {
                b'{' => {
                    self.level += 1;
                    self.is_ignorable = false;
                }
                b'}' => self.close_group(),
                b'\\' => self.control(),
                _ => self.text(*byte),
            }
        }
        self.complete.pop_front()
    }

    fn text(&mut self, byte: u8) {
        if self.text == TextKind::Other {
            return;
        }
        let (Some(digit), Some(data)) = (hex_digit(byte), self.open.last_mut()) else { return };
        if self.text == TextKind::Ignored {
            if data.kind == DataKind::MediaObject {
                data.with_ignored.get_or_insert_with(|| data.hex.clone()).digit(digit);
            }
        } else {
            data.hex.digit(digit);
            if let Some(other) = &mut data.with_ignored {
                other.digit(digit);
            }
        }
    }

    fn close_group(&mut self) {
        self.level = self.level.saturating_sub(1);
        self.is_ignorable = false;
        while let Some(change) = self.changes.pop_if(|change| change.level > self.level) {
            if self.text == TextKind::Data {
                self.finish();
            }
            self.text = change.outer;
        }
    }

    /// Completes the innermost data.
    fn finish(&mut self) {
        let Some(OpenData { kind, hex, with_ignored, .. }) = self.open.pop() else { return };
        for hex in [Some(hex), with_ignored].into_iter().flatten() {
            self.complete.push_back(HexData { kind, bytes: hex.into_bytes() });
        }
    }

    /// Reads the rest of a control word or symbol.
    fn control(&mut self) {
        let limited = self.rest.get(..MAX_CONTROL).unwrap_or(self.rest);
        let (word, after) = split_while(limited, u8::is_ascii_alphabetic);
        if word.is_empty() {
            self.symbol();
            return;
        }
        let (sign, after) = split_at_most_one(after, b'-');
        let (digits, _) = split_while(after, u8::is_ascii_digit);
        // A hyphen without digits is text.
        let length = word.len() + if digits.is_empty() { 0 } else { sign.len() + digits.len() };
        self.rest = self.rest.get(length..).unwrap_or_default();
        self.rest = self.rest.strip_prefix(b" ").unwrap_or(self.rest);
        let is_ignorable = std::mem::take(&mut self.is_ignorable);
        if word.eq_ignore_ascii_case(b"bin") {
            if sign.is_empty() {
                self.binary(digits);
            }
        } else {
            self.word(word, is_ignorable);
        }
    }

    fn symbol(&mut self) {
        let Some((symbol, rest)) = self.rest.split_first() else { return };
        self.rest = rest;
        match symbol {
            b'*' => self.is_ignorable = true,
            b'\'' if self.text != TextKind::Other => {
                // Word ignores the character, and a half byte before it (measured by the authors of oletools).
                self.rest = rest.get(2..).unwrap_or_default();
                if let Some(data) = self.open.last_mut() {
                    data.hex.drop_half();
                    if let Some(other) = &mut data.with_ignored {
                        other.drop_half();
                    }
                }
            }
            _ => {}
        }
    }

    /// Takes the bytes after `\bin`. Outside of data, they are read as text: whether a program skips them differs. A
    /// length beyond the end of the document does not hide the rest.
    fn binary(&mut self, digits: &[u8]) {
        let Some(data) = self.open.last_mut() else { return };
        let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let Some((bytes, rest)) = length.and_then(|length| self.rest.split_at_checked(length))
        else {
            return;
        };
        self.rest = rest;
        if self.text == TextKind::Data {
            data.hex.binary(bytes);
            if let Some(other) = &mut data.with_ignored {
                other.binary(bytes);
            }
        }
    }

    fn word(&mut self, word: &[u8], is_ignorable: bool) {
        let mut lower_case = [0; MAX_WORD];
        // Longer words are no destinations.
        let word = lower_case.get_mut(..word.len()).map_or(&[][..], |buffer| {
            buffer.copy_from_slice(word);
            buffer.make_ascii_lowercase();
            buffer
        });
        if let Some(kind) = data_kind(word) {
            self.open_data(kind);
        } else if self.text == TextKind::Data
            // A destination in the data's own group hides nothing.
            && self.open.last().is_some_and(|data| data.level < self.level)
            && (is_ignorable || is_destination(word))
        {
            self.change(TextKind::Ignored);
        }
    }

    fn open_data(&mut self, kind: DataKind) {
        let is_same_group = self.open.last().is_some_and(|data| data.level == self.level);
        if is_same_group && self.text == TextKind::Data {
            self.finish();
        } else if !self.change(TextKind::Data) {
            return;
        }
        let (level, hex) = (self.level, HexDecoder::default());
        self.open.push(OpenData { kind, level, hex, with_ignored: None });
    }

    /// Changes the kind of text until the end of the group. Returns whether it is changed.
    fn change(&mut self, text: TextKind) -> bool {
        if self.changes.last().is_none_or(|change| change.level < self.level) {
            if self.changes.len() >= MAX_NESTED {
                self.has_reached_limit = true;
                return false;
            }
            self.changes.push(Change { level: self.level, outer: self.text });
        }
        self.text = text;
        true
    }
}

/// Splits bytes before the first one that is not accepted.
fn split_while(bytes: &[u8], accept: fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !accept(byte)).unwrap_or(bytes.len());
    bytes.split_at_checked(end).unwrap_or_default()
}

/// Splits bytes after a first byte of this value, if there is one.
fn split_at_most_one(bytes: &[u8], first: u8) -> (&[u8], &[u8]) {
    bytes.split_at_checked(usize::from(bytes.first() == Some(&first))).unwrap_or_default()
}

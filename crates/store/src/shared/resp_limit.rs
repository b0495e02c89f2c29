//! Limits of replies, checked before a reply is decoded.
//!
//! The decoder of the crate `redis` collects a reply of any length in memory: it waits for a string of 10^18 bytes, an
//! array of as many elements, or the end of a line. It also accepts pushed data at any time. This check follows the
//! boundaries of replies in the protocol RESP2, without storing them, and ends the connection at the first byte that
//! exceeds a limit or belongs to another protocol.

use super::limits::{MAX_BULK, MAX_DEPTH, MAX_ELEMENTS, MAX_LINE, MAX_REPLY};

/// Reason why a reply is rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ReplyLimitError {
    #[error("a reply starts with the byte {0:#04x}, which RESP2 does not define")]
    Type(u8),
    #[error("a reply contains an invalid number")]
    Number,
    #[error("a reply contains a line of more than {MAX_LINE} bytes")]
    Line,
    #[error("a reply contains a string of more than {MAX_BULK} bytes")]
    Bulk,
    #[error("a string in a reply has no end")]
    BulkEnd,
    #[error("a reply has more than {MAX_ELEMENTS} elements")]
    Elements,
    #[error("a reply has more than {MAX_DEPTH} levels")]
    Depth,
    #[error("a reply has more than {MAX_REPLY} bytes")]
    Reply,
}

/// What the next bytes belong to.
#[derive(Clone, Copy)]
enum ReplyPart {
    /// Start of a value.
    Type,
    /// Text up to the end of the line.
    Text { length: usize, is_after_cr: bool },
    /// Number up to the end of the line, after the byte of its type.
    Number { kind: u8, number: LineNumber },
    /// Rest of a string, and the two bytes that end it.
    Bulk { remaining: usize },
    /// First byte after a string.
    BulkCr,
    /// Second byte after a string.
    BulkLf,
}

/// Decimal number of a line.
#[derive(Clone, Copy, Default)]
struct LineNumber {
    value: u64,
    digits: u8,
    is_negative: bool,
    is_after_cr: bool,
}

/// Check of the replies of one connection.
pub(crate) struct ReplyLimit {
    part: ReplyPart,
    /// Numbers of values that are missing in the enclosing arrays, from the outside.
    missing: Vec<usize>,
    /// Length of the current reply.
    length: usize,
    /// Number of values announced in the current reply.
    elements: usize,
}

impl ReplyLimit {
    pub(crate) fn new() -> Self {
        Self { part: ReplyPart::Type, missing: Vec::new(), length: 0, elements: 0 }
    }

    /// Checks the next bytes of the connection. After an error, the connection must be closed.
    pub(crate) fn check(&mut self, mut bytes: &[u8]) -> Result<(), ReplyLimitError> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let ReplyPart::Bulk { remaining } = self.part {
                let (skipped, rest) = bytes.split_at(remaining.min(bytes.len()));
                self.add_length(skipped.len())?;
                let remaining = remaining - skipped.len();
                let is_complete = remaining == 0;
                self.part =
                    if is_complete { ReplyPart::BulkCr } else { ReplyPart::Bulk { remaining } };
                bytes = rest;
                continue;
            }
            self.add_length(1)?;
            self.check_byte(byte)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Returns whether all replies are complete.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_between_replies(&self) -> bool {
        self.length == 0
    }

    fn add_length(&mut self, length: usize) -> Result<(), ReplyLimitError> {
        self.length += length;
        if self.length > MAX_REPLY { Err(ReplyLimitError::Reply) } else { Ok(()) }
    }

    fn check_byte(&mut self, byte: u8) -> Result<(), ReplyLimitError> {
        match self.part {
            ReplyPart::Type => {
                self.part = match byte {
                    b'+' | b'-' => ReplyPart::Text { length: 0, is_after_cr: false },
                    b':' | b'$' | b'*' => {
                        ReplyPart::Number { kind: byte, number: LineNumber::default() }
                    }
                    other => return Err(ReplyLimitError::Type(other)),
                };
            }
            ReplyPart::Text { is_after_cr: true, .. } | ReplyPart::BulkLf if byte == b'\n' => {
                self.end_value();
            }
            ReplyPart::Text { length, .. } => {
                if length >= MAX_LINE {
                    return Err(ReplyLimitError::Line);
                }
                self.part = ReplyPart::Text { length: length + 1, is_after_cr: byte == b'\r' };
            }
            ReplyPart::Number { kind, number } => match number.add(byte)? {
                Some(number) => self.part = ReplyPart::Number { kind, number },
                None => self.end_number(kind, number)?,
            },
            ReplyPart::BulkCr if byte == b'\r' => self.part = ReplyPart::BulkLf,
            ReplyPart::Bulk { .. } | ReplyPart::BulkCr | ReplyPart::BulkLf => {
                return Err(ReplyLimitError::BulkEnd);
            }
        }
        Ok(())
    }

    fn end_number(&mut self, kind: u8, number: LineNumber) -> Result<(), ReplyLimitError> {
        // A negative length stands for no value. The decoder reads -0 as 0.
        if kind == b':' || (number.is_negative && number.value > 0) {
            self.end_value();
            return Ok(());
        }
        let limit = if kind == b'$' { ReplyLimitError::Bulk } else { ReplyLimitError::Elements };
        let length = usize::try_from(number.value).map_err(|_| limit)?;
        if kind == b'$' {
            if length > MAX_BULK {
                return Err(limit);
            }
            self.part = match length {
                0 => ReplyPart::BulkCr,
                remaining => ReplyPart::Bulk { remaining },
            };
            return Ok(());
        }
        self.elements = self.elements.saturating_add(length);
        if self.elements > MAX_ELEMENTS {
            return Err(limit);
        }
        if length == 0 {
            self.end_value();
            return Ok(());
        }
        if self.missing.len() >= MAX_DEPTH {
            return Err(ReplyLimitError::Depth);
        }
        self.missing.push(length);
        self.part = ReplyPart::Type;
        Ok(())
    }

    /// Ends a value, and the arrays that are complete with it.
    fn end_value(&mut self) {
        self.part = ReplyPart::Type;
        while let Some(missing) = self.missing.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return;
            }
            self.missing.pop();
        }
        self.length = 0;
        self.elements = 0;
    }
}

impl LineNumber {
    /// Adds a byte of the line. Returns `None` at the end of the line.
    fn add(mut self, byte: u8) -> Result<Option<Self>, ReplyLimitError> {
        match byte {
            b'\n' if self.is_after_cr && self.digits > 0 => return Ok(None),
            _ if self.is_after_cr => return Err(ReplyLimitError::Number),
            b'\r' => self.is_after_cr = true,
            b'-' if self.digits == 0 && !self.is_negative => self.is_negative = true,
            b'0'..=b'9' if self.digits < 19 => {
                // At most 19 digits, which 64 bits can hold.
                self.value = self.value * 10 + u64::from(byte - b'0');
                self.digits += 1;
            }
            _ => return Err(ReplyLimitError::Number),
        }
        Ok(Some(self))
    }
}

//! Decodes escape sequences of single bytes.

use std::io::{self, Read};

/// Parses the sequence behind its first byte. Returns the byte that it stands for, and the length that it has behind its
/// first byte.
pub(super) type EscapeParser = fn(&[u8]) -> Option<(u8, usize)>;

/// Decodes a text. A start that begins no sequence stands for itself.
pub(super) struct EscapesDecoded<'a> {
    rest: &'a [u8],
    start: u8,
    parse: EscapeParser,
}

impl<'a> EscapesDecoded<'a> {
    /// Decodes the sequences that begin with `start`.
    pub(super) fn new(text: &'a [u8], start: u8, parse: EscapeParser) -> Self {
        Self { rest: text, start, parse }
    }

    fn next_byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        let decoded = if *first == self.start { (self.parse)(rest) } else { None };
        let (byte, length) = decoded.unwrap_or((*first, 0));
        self.rest = rest.get(length..)?;
        Some(byte)
    }
}

impl Read for EscapesDecoded<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        for byte in output {
            let Some(decoded) = self.next_byte() else { break };
            *byte = decoded;
            written += 1;
        }
        Ok(written)
    }
}

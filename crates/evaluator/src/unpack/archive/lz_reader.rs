//! Decoding of literals and of copies of earlier bytes.

use std::io::{self, Read};

/// A part of the file.
pub(super) enum LzSymbol {
    Literal(u8),
    /// Bytes of the file at a distance before the current position.
    Copy {
        /// At least 1.
        distance: usize,
        /// At least 1.
        length: usize,
    },
}

/// Reads the compressed data.
pub(super) trait LzSymbols {
    /// Size of the history, the maximum distance of a copy, bytes. The history contains zeros at first.
    const HISTORY: usize;

    /// Returns the next symbol. `None` if the data are damaged or truncated.
    fn next(&mut self) -> Option<LzSymbol>;
}

/// Reads a file of a known size.
pub(super) struct LzReader<S> {
    symbols: S,
    /// Bytes of the file that follow.
    rest: u64,
    /// The last bytes of the file, at their offset modulo the size.
    history: Vec<u8>,
    position: usize,
    /// Distance, and number of bytes of the current copy that follow.
    copy: (usize, usize),
}

impl<S: LzSymbols> LzReader<S> {
    pub(super) fn new(symbols: S, size: u64) -> Self {
        Self { symbols, rest: size, history: vec![0; S::HISTORY], position: 0, copy: (0, 0) }
    }

    /// Returns the next byte of the file.
    fn next_byte(&mut self) -> Option<u8> {
        if self.copy.1 == 0 {
            match self.symbols.next()? {
                LzSymbol::Literal(byte) => return Some(byte),
                LzSymbol::Copy { distance, length } => self.copy = (distance, length),
            }
        }
        self.copy.1 = self.copy.1.checked_sub(1)?;
        let source = self.position.wrapping_sub(self.copy.0) % S::HISTORY;
        self.history.get(source).copied()
    }
}

impl<S: LzSymbols> Read for LzReader<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        for target in buffer {
            if self.rest == 0 {
                break;
            }
            let Some(byte) = self.next_byte() else {
                if length > 0 {
                    break;
                }
                let reason = "the compressed data is damaged";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            };
            if let Some(kept) = self.history.get_mut(self.position % S::HISTORY) {
                *kept = byte;
            }
            *target = byte;
            self.position = self.position.wrapping_add(1);
            self.rest -= 1;
            length += 1;
        }
        Ok(length)
    }
}

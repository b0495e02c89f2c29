//! Method 4 of ARJ: literals, and copies of bytes before them, in bits without further compression.

use std::io::{self, Read};

/// Maximum distance of a copy, and size of the history, bytes.
const HISTORY: usize = 1 << 15;

/// Length of the shortest copy, bytes.
const MIN_COPY: usize = 3;

/// Reads a file of a known size.
pub(super) struct FastestReader<'d> {
    bits: BitReader<'d>,
    /// Bytes of the file that follow.
    rest: u64,
    /// The last bytes of the file, at their offset modulo the size.
    history: Vec<u8>,
    position: usize,
    /// Distance, and number of bytes of the current copy that follow.
    copy: (usize, usize),
}

impl<'d> FastestReader<'d> {
    pub(super) fn new(data: &'d [u8], size: u64) -> Self {
        let bits = BitReader { data, used: 0 };
        Self { bits, rest: size, history: vec![0; HISTORY], position: 0, copy: (0, 0) }
    }

    /// Returns the next byte of the file.
    fn next(&mut self) -> Option<u8> {
        if self.copy.1 == 0 {
            // The length of a copy, minus two; zero for a literal.
            let length = self.bits.variable(0, 7)?;
            if length == 0 {
                return self.bits.number(8).and_then(|byte| u8::try_from(byte).ok());
            }
            let distance = self.bits.variable(9, 13)? + 1;
            self.copy = (distance, length - 1 + MIN_COPY);
        }
        self.copy.1 -= 1;
        let source = self.position.wrapping_sub(self.copy.0) % HISTORY;
        self.history.get(source).copied()
    }
}

impl Read for FastestReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        for target in buffer {
            if self.rest == 0 {
                break;
            }
            let Some(byte) = self.next() else {
                if length > 0 {
                    break;
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if let Some(kept) = self.history.get_mut(self.position % HISTORY) {
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

/// Reads bits, most significant one first.
struct BitReader<'d> {
    data: &'d [u8],
    /// Number of bits that were read.
    used: usize,
}

impl BitReader<'_> {
    fn bit(&mut self) -> Option<usize> {
        let byte = *self.data.get(self.used / 8)?;
        let bit = byte >> (7 - self.used % 8) & 1;
        self.used += 1;
        Some(bit.into())
    }

    fn number(&mut self, length: u32) -> Option<usize> {
        (0..length).try_fold(0, |number, _| Some(number << 1 | self.bit()?))
    }

    /// Reads a number of at least `min` bits: each one before it, at most up to `max`, stands for a longer one.
    fn variable(&mut self, min: u32, max: u32) -> Option<usize> {
        let (mut width, mut base) = (min, 0);
        while width < max && self.bit()? == 1 {
            base += 1 << width;
            width += 1;
        }
        Some(base + self.number(width)?)
    }
}

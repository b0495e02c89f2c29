//! Method 4 of ARJ: literals, and copies of bytes before them, in bits without further compression.

use crate::unpack::archive::lz_reader::{LzReader, LzSymbol, LzSymbols};

/// Length of the shortest copy, bytes.
const MIN_COPY: usize = 3;

/// Returns a reader of a file of `size` bytes.
pub(super) fn open(data: &[u8], size: u64) -> LzReader<impl LzSymbols> {
    LzReader::new(FastestSymbols { bits: BitReader { data, used: 0 } }, size)
}

struct FastestSymbols<'d> {
    bits: BitReader<'d>,
}

impl LzSymbols for FastestSymbols<'_> {
    const HISTORY: usize = 1 << 15;

    fn next(&mut self) -> Option<LzSymbol> {
        // The length of a copy, minus two; zero for a literal.
        let length = self.bits.variable(0, 7)?;
        if length == 0 {
            return self
                .bits
                .number(8)
                .and_then(|byte| u8::try_from(byte).ok())
                .map(LzSymbol::Literal);
        }
        let distance = self.bits.variable(9, 13)? + 1;
        Some(LzSymbol::Copy { distance, length: length - 1 + MIN_COPY })
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

//! Implode, method 6: APPNOTE.TXT section 5.3.

use crate::unpack::archive::lz_reader::{LzReader, LzSymbol, LzSymbols};

/// General purpose bits: a window of 8 KiB, and codes for literals.
const LARGE_WINDOW: u16 = 1 << 1;
const LITERAL_CODES: u16 = 1 << 2;

/// Maximum length of a code, bits.
const MAX_CODE: usize = 16;

/// The length of a copy that more bits follow.
const LONG_COPY: usize = 63;

/// Returns a reader of a file of `size` bytes. It advances the input by the bytes that are used.
pub(super) fn open<'r>(
    input: &'r mut &[u8],
    flags: u16,
    size: u64,
) -> LzReader<impl LzSymbols + 'r> {
    let bits = BitInput { input, buffer: 0, count: 0 };
    LzReader::new(ImplodeSymbols { bits, codes: None, flags }, size)
}

struct ImplodeSymbols<'r, 'd> {
    bits: BitInput<'r, 'd>,
    codes: Option<ImplodeCodes>,
    flags: u16,
}

struct ImplodeCodes {
    literals: Option<ShannonFano>,
    lengths: ShannonFano,
    distances: ShannonFano,
}

impl ImplodeSymbols<'_, '_> {
    fn read_codes(&mut self) -> Option<ImplodeCodes> {
        let has_literals = self.flags & LITERAL_CODES != 0;
        let mut read = |count| ShannonFano::read(self.bits.input, count);
        let literals = if has_literals { Some(read(256)?) } else { None };
        Some(ImplodeCodes { literals, lengths: read(64)?, distances: read(64)? })
    }
}

impl LzSymbols for ImplodeSymbols<'_, '_> {
    const HISTORY: usize = 8 << 10;

    fn next(&mut self) -> Option<LzSymbol> {
        if self.codes.is_none() {
            self.codes = Some(self.read_codes()?);
        }
        let codes = self.codes.as_ref()?;
        if self.bits.bit()? == 1 {
            let literal = match &codes.literals {
                Some(literals) => literals.decode(&mut self.bits)?,
                None => self.bits.number(8)?,
            };
            return u8::try_from(literal).ok().map(LzSymbol::Literal);
        }
        let low_bits = if self.flags & LARGE_WINDOW == 0 { 6 } else { 7 };
        let low = self.bits.number(low_bits)?;
        let distance = (codes.distances.decode(&mut self.bits)? << low_bits | low) + 1;
        let mut length = codes.lengths.decode(&mut self.bits)?;
        if length == LONG_COPY {
            length += self.bits.number(8)?;
        }
        let shortest = if codes.literals.is_some() { 3 } else { 2 };
        Some(LzSymbol::Copy { distance, length: length + shortest })
    }
}

/// Codes of Shannon and Fano: those of shorter codes, and of smaller values, are larger.
struct ShannonFano {
    /// Number of codes of each length.
    counts: [usize; MAX_CODE + 1],
    /// Values in the order of their codes.
    values: Vec<usize>,
}

impl ShannonFano {
    /// Reads the lengths of the codes of `count` values.
    fn read(input: &mut &[u8], count: usize) -> Option<Self> {
        let (runs, rest) = input.split_first()?;
        let (runs, rest) = rest.split_at_checked(usize::from(*runs) + 1)?;
        *input = rest;
        let mut lengths = Vec::new();
        for run in runs {
            let length = usize::from(run & 0x0f) + 1;
            lengths.extend(std::iter::repeat_n(length, usize::from(run >> 4) + 1));
        }
        if lengths.len() != count {
            return None;
        }
        let mut counts = [0; MAX_CODE + 1];
        for length in &lengths {
            *counts.get_mut(*length)? += 1;
        }
        let mut values: Vec<_> = (0..count).collect();
        values.sort_by_key(|value| lengths.get(*value));
        Some(Self { counts, values })
    }

    fn decode(&self, bits: &mut BitInput<'_, '_>) -> Option<usize> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in self.counts.get(1..)? {
            // Inverted, the codes of a length follow each other in ascending order.
            code |= 1 - bits.bit()?;
            if code < first + count {
                return self.values.get(index + code.checked_sub(first)?).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// Reads bits, least significant one first.
struct BitInput<'r, 'd> {
    input: &'r mut &'d [u8],
    /// The rest of the last byte.
    buffer: u8,
    count: u32,
}

impl BitInput<'_, '_> {
    fn bit(&mut self) -> Option<usize> {
        if self.count == 0 {
            let (byte, rest) = self.input.split_first()?;
            (self.buffer, self.count, *self.input) = (*byte, 8, rest);
        }
        let bit = self.buffer & 1;
        self.buffer >>= 1;
        self.count -= 1;
        Some(bit.into())
    }

    fn number(&mut self, length: u32) -> Option<usize> {
        (0..length).try_fold(0, |number, index| Some(number | self.bit()? << index))
    }
}

//! Reads the fields of headers.

/// Why a header or a part of the archive cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SevenDefect {
    /// The header ends too early or contradicts itself.
    Damaged,
    /// A password is necessary.
    Encrypted,
    /// A part of the header is in another stream. Only 7-Zip reads such headers, and no program writes them.
    External,
}

/// The rest of a header. Copies are cursors at other positions.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct HeaderReader<'h>(pub(super) &'h [u8]);

impl<'h> HeaderReader<'h> {
    pub(super) fn take(&mut self, length: u64) -> Result<&'h [u8], SevenDefect> {
        let length = usize::try_from(length).map_err(|_overflow| SevenDefect::Damaged)?;
        let (part, rest) = self.0.split_at_checked(length).ok_or(SevenDefect::Damaged)?;
        self.0 = rest;
        Ok(part)
    }

    pub(super) fn byte(&mut self) -> Result<u8, SevenDefect> {
        self.take(1)?.first().copied().ok_or(SevenDefect::Damaged)
    }

    /// Reads a number of variable length: the number of leading ones in the first byte is that of the bytes after it,
    /// its other bits are the most significant ones.
    pub(super) fn number(&mut self) -> Result<u64, SevenDefect> {
        let first = self.byte()?;
        let additional = first.leading_ones();
        let mut number = 0;
        for index in 0..additional {
            number |= u64::from(self.byte()?) << (8 * index);
        }
        if additional < 7 {
            let high = u64::from(first) & (0x7f >> additional);
            number |= high << (8 * additional);
        }
        Ok(number)
    }

    pub(super) fn skip_numbers(&mut self, count: u64) -> Result<(), SevenDefect> {
        for _ in 0..count {
            self.number()?;
        }
        Ok(())
    }

    /// Skips a property whose size precedes it.
    pub(super) fn skip_property(&mut self) -> Result<(), SevenDefect> {
        let size = self.number()?;
        self.take(size).map(|_property| ())
    }
}

/// A sequence of bits, most significant one first.
#[derive(Clone, Copy, Default, Debug)]
pub(super) enum Bits<'h> {
    /// All bits are zero.
    #[default]
    None,
    /// All bits are one.
    All,
    Vector {
        bytes: &'h [u8],
        position: usize,
    },
}

impl<'h> Bits<'h> {
    pub(super) fn vector(reader: &mut HeaderReader<'h>, count: u64) -> Result<Self, SevenDefect> {
        Ok(Self::Vector { bytes: reader.take(count.div_ceil(8))?, position: 0 })
    }

    pub(super) fn next(&mut self) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Vector { bytes, position } => {
                let byte = bytes.get(*position / 8).copied().unwrap_or_default();
                let bit = byte & (0x80 >> (*position % 8));
                *position = position.saturating_add(1);
                bit != 0
            }
        }
    }
}

/// CRC-32 of some of the streams in a list.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct SevenDigests<'h> {
    is_defined: Bits<'h>,
    values: HeaderReader<'h>,
}

impl<'h> SevenDigests<'h> {
    pub(super) fn parse(reader: &mut HeaderReader<'h>, count: u64) -> Result<Self, SevenDefect> {
        let is_defined = match reader.byte()? {
            0 => Bits::vector(reader, count)?,
            _ => Bits::All,
        };
        let number = match is_defined {
            Bits::Vector { bytes, .. } => {
                // A header of 64 MiB has 512 million bits.
                let ones: u64 = bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
                let unused = 8 * bytes.len() as u64 - count;
                let last = bytes.last().copied().unwrap_or_default();
                ones - u64::from((last & !(0xff << unused)).count_ones())
            }
            Bits::None | Bits::All => count,
        };
        let values = reader.take(number.checked_mul(4).ok_or(SevenDefect::Damaged)?)?;
        Ok(Self { is_defined, values: HeaderReader(values) })
    }

    /// Returns the CRC-32 of the next stream, if there is one.
    pub(super) fn next(&mut self) -> Option<u32> {
        if !self.is_defined.next() {
            return None;
        }
        let value = self.values.take(4).ok()?;
        Some(u32::from_le_bytes(*value.first_chunk()?))
    }
}

//! Headers of the formats.

/// Magic number of the binary format, octal 070707, in both byte orders.
pub(super) const LITTLE_ENDIAN: [u8; 2] = [0xc7, 0x71];
pub(super) const BIG_ENDIAN: [u8; 2] = [0x71, 0xc7];

/// Start of the magic numbers of the ASCII formats.
pub(super) const ASCII: &[u8] = b"07070";

/// Byte order of the binary format.
#[derive(Clone, Copy)]
pub(super) enum CpioByteOrder {
    Little,
    Big,
}

impl CpioByteOrder {
    /// Returns the byte order of the header at the start of `bytes`, if its format is binary.
    pub(super) fn detect(bytes: &[u8]) -> Option<Self> {
        match *bytes.first_chunk()? {
            LITTLE_ENDIAN => Some(Self::Little),
            BIG_ENDIAN => Some(Self::Big),
            _ => None,
        }
    }

    pub(super) fn magic(self) -> [u8; 2] {
        match self {
            Self::Little => LITTLE_ENDIAN,
            Self::Big => BIG_ENDIAN,
        }
    }
}

/// Maximum length of a name, bytes: that of paths on all common systems.
const MAX_NAME: usize = 4096;

/// One member, without its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpioHeader<'a> {
    /// Without the zero at its end.
    pub(super) name: &'a [u8],
    /// Whether the name has a zero at its end and nowhere else.
    has_valid_name: bool,
    /// Mode of the file, with its type.
    mode: u64,
    /// Length of the part of the magic number that all variants of the format have, bytes.
    pub(super) magic_length: usize,
    /// Offset of the content, bytes.
    pub(super) content_start: usize,
    /// Bytes.
    pub(super) size: usize,
    /// What the lengths of the header and of the content are multiples of.
    alignment: usize,
    /// Whether the header is one of an ASCII format with digits in all fields.
    is_ascii: bool,
    /// Whether a number contains other characters than digits. Some programs reject it, others read the digits before.
    pub(super) is_ambiguous: bool,
}

/// The numbers of a header.
struct CpioFields {
    length: usize,
    mode: Option<(u64, bool)>,
    name_size: Option<(u64, bool)>,
    size: Option<(u64, bool)>,
    alignment: usize,
}

impl CpioFields {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |start: usize, length: usize, radix: u32| {
            digits(bytes.get(start..)?.get(..length)?, radix)
        };
        Some(match bytes.get(..6)? {
            b"070701" | b"070702" => Self {
                length: 110,
                mode: number(14, 8, 16),
                name_size: number(94, 8, 16),
                size: number(54, 8, 16),
                alignment: 4,
            },
            b"070707" => Self {
                length: 76,
                mode: number(18, 6, 8),
                name_size: number(59, 6, 8),
                size: number(65, 11, 8),
                alignment: 1,
            },
            b"070727" => Self {
                length: 116,
                mode: number(31, 6, 8),
                name_size: number(86, 4, 16),
                size: number(99, 16, 16),
                alignment: 1,
            },
            _ => return Some(Self::parse_binary(bytes, CpioByteOrder::detect(bytes)?)),
        })
    }

    /// Parses a header of the binary format. Ignores its magic number.
    fn parse_binary(bytes: &[u8], order: CpioByteOrder) -> Self {
        let half = |offset: usize| {
            let bytes = *bytes.get(offset..)?.first_chunk()?;
            let number = match order {
                CpioByteOrder::Little => u16::from_le_bytes(bytes),
                CpioByteOrder::Big => u16::from_be_bytes(bytes),
            };
            Some(u64::from(number))
        };
        // The more significant half is first in both byte orders.
        let size = half(22).zip(half(24)).map(|(high, low)| high << 16 | low);
        Self {
            length: 26,
            mode: half(6).map(|mode| (mode, true)),
            name_size: half(20).map(|size| (size, true)),
            size: size.map(|size| (size, true)),
            alignment: 2,
        }
    }
}

impl<'a> CpioHeader<'a> {
    /// Parses the header at the start of `bytes`. The content may be truncated, the name may not.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        Self::from_fields(bytes, &CpioFields::parse(bytes)?)
    }

    /// Parses a header of the binary format at the start of `bytes`, whatever its magic number is.
    pub(super) fn parse_binary(bytes: &'a [u8], order: CpioByteOrder) -> Option<Self> {
        Self::from_fields(bytes, &CpioFields::parse_binary(bytes, order))
    }

    fn from_fields(bytes: &'a [u8], fields: &CpioFields) -> Option<Self> {
        let (mode, is_mode_valid) = fields.mode?;
        let (name_size, is_name_size_valid) = fields.name_size?;
        let (size, is_size_valid) = fields.size?;
        let name_size =
            usize::try_from(name_size).ok().filter(|size| (1..=MAX_NAME).contains(size))?;
        let end = fields.length + name_size;
        let name = bytes.get(fields.length..end)?;
        let zero = name.iter().position(|byte| *byte == 0);
        Some(Self {
            name: name.get(..zero.unwrap_or(name.len())).unwrap_or(name),
            has_valid_name: zero == Some(name.len() - 1),
            mode,
            magic_length: if fields.alignment == 2 { LITTLE_ENDIAN.len() } else { ASCII.len() },
            content_start: end.next_multiple_of(fields.alignment),
            size: usize::try_from(size).unwrap_or(usize::MAX),
            alignment: fields.alignment,
            // The large format has letters between the fields.
            is_ascii: bytes
                .get(..fields.length)?
                .iter()
                .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'm' | b'n' | b's' | b':')),
            is_ambiguous: !(is_mode_valid && is_name_size_valid && is_size_valid),
        })
    }

    /// Returns whether this is a header, and not other bytes with the magic number.
    pub(super) fn is_plausible(&self) -> bool {
        self.is_type() && self.has_valid_name
    }

    /// Returns whether the type of the file is known.
    fn is_type(&self) -> bool {
        // FIFO, character device, directory, block device, file, link, socket; zero in the trailer.
        matches!(self.mode >> 12, 0 | 1 | 2 | 4 | 6 | 8 | 10 | 12)
    }

    /// Returns whether bsdtar takes this for a header where an archive starts, or behind damage. It checks neither the type
    /// of the file nor the end of the name.
    pub(super) fn is_acceptable(&self) -> bool {
        self.is_ascii || self.is_plausible()
    }

    /// Returns whether bsdtar takes this for a header where an archive starts.
    pub(super) fn is_acceptable_at_start(&self) -> bool {
        self.is_acceptable() || self.is_type()
    }

    /// Returns the offset of the next header.
    pub(super) fn end(&self) -> usize {
        let size = self.size.checked_next_multiple_of(self.alignment).unwrap_or(usize::MAX);
        self.content_start.saturating_add(size)
    }
}

/// Parses the digits at the start of a field, after spaces. Returns whether the field has no other characters as well.
fn digits(field: &[u8], radix: u32) -> Option<(u64, bool)> {
    let trimmed = field.trim_ascii_start();
    let digit = |byte: &u8| char::from(*byte).to_digit(radix).map(u64::from);
    let mut number: u64 = 0;
    let mut count = 0;
    for value in trimmed.iter().map_while(digit) {
        number = number.checked_mul(radix.into())?.checked_add(value)?;
        count += 1;
    }
    (count > 0).then_some((number, count == field.len()))
}

//! Decoders: `Methods.txt` of 7-Zip.

use std::{
    io::{self, Read},
    ops::Range,
};

use deflate64::Deflate64Decoder;
use flate2::read::DeflateDecoder;
use lzma_rust2::{
    Lzma2Reader, LzmaReader,
    filter::{bcj::BcjReader, bcj2::Bcj2Reader, delta::DeltaReader},
};
use ppmd_rust::Ppmd7Decoder;

use super::{
    bzip2_reader::Bzip2Reader,
    header_reader::{HeaderReader, SevenDefect},
};

const COPY: u64 = 0x00;
const DELTA: u64 = 0x03;
const ARM64: u64 = 0x0a;
const RISCV: u64 = 0x0b;
const LZMA2: u64 = 0x21;
const SWAP2: u64 = 0x02_0302;
const SWAP4: u64 = 0x02_0304;
const LZMA: u64 = 0x03_0101;
const X86: u64 = 0x0303_0103;
const BCJ2: u64 = 0x0303_011b;
const POWERPC: u64 = 0x0303_0205;
const IA64: u64 = 0x0303_0401;
const ARM: u64 = 0x0303_0501;
const ARM_THUMB: u64 = 0x0303_0701;
const SPARC: u64 = 0x0303_0805;
const PPMD: u64 = 0x03_0401;
const DEFLATE: u64 = 0x04_0108;
const DEFLATE64: u64 = 0x04_0109;
const BZIP2: u64 = 0x04_0202;
/// The methods of RAR. 7-Zip has them for RAR archives, and uses them in 7z archives as well.
const RAR: std::ops::RangeInclusive<u64> = 0x04_0301..=0x04_0305;
const AES: u64 = 0x06f1_0701;

/// Maximum length of a compressed chunk of LZMA2, bytes.
const LZMA2_CHUNK: u64 = 1 << 16;

/// Number of inputs of BCJ2.
const BCJ2_INPUTS: usize = 4;

/// Limits of `PPMd`, variant H.
const PPMD_ORDERS: std::ops::RangeInclusive<u8> = 2..=64;
const MIN_PPMD_MEMORY: u32 = 1 << 11;

/// One decoder of a folder.
#[derive(Debug)]
pub(super) struct SevenCoder<'h> {
    method: u64,
    properties: &'h [u8],
    /// Numbers of the inputs among those of all decoders in the folder.
    pub(super) inputs: Range<u64>,
}

impl<'h> SevenCoder<'h> {
    /// Parses a decoder whose first input has the number `first_input`.
    pub(super) fn parse(
        reader: &mut HeaderReader<'h>,
        first_input: u64,
    ) -> Result<Self, SevenDefect> {
        let flags = reader.byte()?;
        let id = reader.take(u64::from(flags & 0x0f))?;
        if flags & 0xc0 != 0 || id.len() > 8 {
            return Err(SevenDefect::Damaged);
        }
        let method = id.iter().fold(0, |method, byte| method << 8 | u64::from(*byte));
        let inputs = if flags & 0x10 == 0 {
            1
        } else {
            let (inputs, outputs) = (reader.number()?, reader.number()?);
            if outputs != 1 {
                return Err(SevenDefect::Damaged);
            }
            inputs
        };
        let length = if flags & 0x20 == 0 { 0 } else { reader.number()? };
        let properties = reader.take(length)?;
        let end = first_input.saturating_add(inputs);
        Ok(Self { method, properties, inputs: first_input..end })
    }

    pub(super) fn is_encryption(&self) -> bool {
        self.method == AES
    }

    /// Returns whether only 7-Zip has this decoder, and no program uses it for 7z archives by default.
    pub(super) fn is_unusual(&self) -> bool {
        matches!(self.method, SWAP2 | SWAP4) || RAR.contains(&self.method)
    }

    /// Returns the size of the dictionary or of the model, bytes. Distances do not reach before the start of the output of
    /// `size` bytes, so a dictionary need not be larger.
    pub(super) fn window(&self, size: u64) -> io::Result<usize> {
        let dictionary = match self.method {
            LZMA => u64::from(self.u32_property()?).min(size),
            LZMA2 => u64::from(self.lzma2_dictionary()?).min(size),
            PPMD => u64::from(self.u32_property()?),
            _ => 0,
        };
        Ok(usize::try_from(dictionary).unwrap_or(usize::MAX))
    }

    /// Returns a reader of the output, which has `size` bytes.
    pub(super) fn open<'d>(
        &self,
        mut inputs: Vec<Box<dyn Read + 'd>>,
        size: u64,
    ) -> io::Result<Box<dyn Read + 'd>> {
        if self.method == BCJ2 {
            if inputs.len() != BCJ2_INPUTS {
                return Err(invalid("invalid number of inputs of BCJ2"));
            }
            return Ok(Box::new(Bcj2Reader::try_new(inputs, size)?));
        }
        let (Some(input), true) = (inputs.pop(), inputs.is_empty()) else {
            return Err(invalid("invalid number of inputs of a 7z method"));
        };
        Ok(match self.method {
            COPY => input,
            LZMA => self.open_lzma(input, size)?,
            LZMA2 => {
                // The decoder reads a chunk completely before it decodes it. Zeros after truncated data let it decode
                // what there is.
                let input = input.chain(io::repeat(0).take(LZMA2_CHUNK));
                Box::new(Lzma2Reader::new(input, self.dictionary(size)?, None))
            }
            PPMD => self.open_ppmd(input)?,
            DEFLATE => Box::new(DeflateDecoder::new(input)),
            DEFLATE64 => Box::new(Deflate64Decoder::new(input)),
            BZIP2 => Box::new(Bzip2Reader::new(input)),
            DELTA => {
                let distance = self.properties.first().map_or(1, |byte| usize::from(*byte) + 1);
                Box::new(DeltaReader::new(input, distance))
            }
            X86 => Box::new(BcjReader::new_x86(input, 0)),
            POWERPC => Box::new(BcjReader::new_ppc(input, 0)),
            IA64 => Box::new(BcjReader::new_ia64(input, 0)),
            ARM => Box::new(BcjReader::new_arm(input, 0)),
            ARM_THUMB => Box::new(BcjReader::new_arm_thumb(input, 0)),
            SPARC => Box::new(BcjReader::new_sparc(input, 0)),
            ARM64 => Box::new(BcjReader::new_arm64(input, self.branch_start())),
            RISCV => Box::new(BcjReader::new_riscv(input, self.branch_start())),
            method => {
                let reason = format!("7z method {method:x}");
                return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
            }
        })
    }

    fn open_lzma<'d>(
        &self,
        input: Box<dyn Read + 'd>,
        size: u64,
    ) -> io::Result<Box<dyn Read + 'd>> {
        let properties = self.properties.first().copied().unwrap_or_default();
        let dictionary = self.dictionary(size)?;
        let mut reader = LzmaReader::new_with_props(input, size, properties, dictionary, None)?;
        reader.set_defer_errors(true);
        Ok(Box::new(reader))
    }

    fn open_ppmd<'d>(&self, input: Box<dyn Read + 'd>) -> io::Result<Box<dyn Read + 'd>> {
        let order = self.properties.first().copied().unwrap_or_default();
        let memory = self.u32_property()?;
        if !PPMD_ORDERS.contains(&order) || memory < MIN_PPMD_MEMORY {
            return Err(invalid("invalid properties of PPMd"));
        }
        match Ppmd7Decoder::new(input, order.into(), memory) {
            Ok(decoder) => Ok(Box::new(decoder)),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        }
    }

    /// Returns the size of the dictionary for an output of `size` bytes, at least the minimum of LZMA.
    fn dictionary(&self, size: u64) -> io::Result<u32> {
        let window = self.window(size)?.max(4096);
        u32::try_from(window).map_err(|_overflow| invalid("invalid dictionary"))
    }

    /// Returns the dictionary of LZMA or the memory of `PPMd`: a number after the first byte.
    fn u32_property(&self) -> io::Result<u32> {
        let number = self.properties.get(1..).and_then(<[u8]>::first_chunk);
        number
            .map(|number| u32::from_le_bytes(*number))
            .ok_or_else(|| invalid("invalid properties"))
    }

    /// Returns the dictionary of LZMA2: 2ⁿ or 3 · 2ⁿ.
    fn lzma2_dictionary(&self) -> io::Result<u32> {
        match self.properties.first().copied() {
            Some(40) => Ok(u32::MAX),
            Some(bits @ 0..40) => Ok((2 | u32::from(bits & 1)) << (bits / 2 + 11)),
            _ => Err(invalid("invalid properties of LZMA2")),
        }
    }

    /// Returns the address at which the program starts.
    fn branch_start(&self) -> usize {
        let start = self.properties.first_chunk().map(|start| u32::from_le_bytes(*start));
        start.and_then(|start| usize::try_from(start).ok()).unwrap_or_default()
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

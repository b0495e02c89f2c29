//! Decompression of VBA source code, [MS-OVBA] 2.4.1.

use std::io::{self, Read};

/// Maximum size of a decompressed chunk, bytes.
const CHUNK: usize = 4096;

/// First byte of a container.
const SIGNATURE: u8 = 1;

/// Decompresses a container. Each chunk of compressed data gives at least half as much output, so that the output's
/// limits also limit the time.
pub(in crate::unpack) struct VbaDecoder<R> {
    input: R,
    /// The first header, until it is used.
    first: Option<u16>,
    /// The current chunk, decompressed.
    chunk: Vec<u8>,
    /// Number of bytes of the chunk that were read.
    position: usize,
    /// Number of bytes of the input that were read.
    consumed: usize,
    /// Returned after the chunk.
    error: Option<io::Error>,
    is_at_end: bool,
}

impl<R: Read> VbaDecoder<R> {
    /// Creates a decoder, and reads the signature and the first header.
    pub(in crate::unpack) fn new(input: R) -> Self {
        let mut decoder = Self {
            input,
            first: None,
            chunk: Vec::new(),
            position: 0,
            consumed: 0,
            error: None,
            is_at_end: false,
        };
        let start = decoder.input(3).first_chunk().copied().filter(|start| is_container(*start));
        decoder.first = start.map(|[_, low, high]| u16::from_le_bytes([low, high]));
        if decoder.first.is_none() {
            decoder.error = Some(invalid("no compressed VBA source"));
            decoder.is_at_end = true;
        }
        decoder
    }

    /// Returns the number of bytes of the input that were read.
    pub(super) fn consumed(&self) -> usize {
        self.consumed
    }

    /// Reads the header of a chunk; 0 at the end of the input, as in zeros that pad it.
    fn header(&mut self) -> u16 {
        self.input(2).first_chunk().map_or(0, |header| u16::from_le_bytes(*header))
    }

    /// Reads at most `length` bytes of the input, which is in memory and does not fail.
    fn input(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(length as u64).read_to_end(&mut bytes);
        self.consumed += read.unwrap_or_default();
        bytes
    }

    /// Decompresses the next chunk. At an error, the chunk has what is before.
    fn next_chunk(&mut self) -> io::Result<()> {
        const COMPRESSED: u16 = 0x8000;
        self.chunk.clear();
        self.position = 0;
        let first = self.first.take();
        let header = first.unwrap_or_else(|| self.header());
        if header == 0 {
            self.is_at_end = true;
            return Ok(());
        }
        if !is_chunk(header) {
            return Err(invalid("damaged VBA source"));
        }
        // The size includes the header, and is stored without three.
        let size = usize::from(header & 0x0fff) + 1;
        let data = self.input(size);
        if header & COMPRESSED == 0 {
            self.chunk.extend(&data);
        } else {
            decompress(&data, &mut self.chunk)?;
        }
        if data.len() < size {
            return Err(invalid("the VBA source is truncated"));
        }
        self.is_at_end = self.chunk.is_empty();
        Ok(())
    }
}

impl<R: Read> Read for VbaDecoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut rest = self.chunk.get(self.position..).unwrap_or_default();
            if !rest.is_empty() {
                let read = rest.read(buffer)?;
                self.position += read;
                return Ok(read);
            }
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if self.is_at_end {
                return Ok(0);
            }
            if let Err(error) = self.next_chunk() {
                self.error = Some(error);
                self.is_at_end = true;
            }
        }
    }
}

/// Returns whether bytes are the start of a container: the signature, and the header of a chunk.
pub(super) fn is_container([signature, low, high]: [u8; 3]) -> bool {
    signature == SIGNATURE && is_chunk(u16::from_le_bytes([low, high]))
}

/// Returns whether the header of a chunk has the signature.
fn is_chunk(header: u16) -> bool {
    header >> 12 & 7 == 3
}

/// Decompresses a chunk: groups of eight tokens after a byte of flags, [MS-OVBA] 2.4.1.3.5.
fn decompress(mut data: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
    while let Some((flags, rest)) = data.split_first() {
        data = rest;
        for bit in 0..8 {
            if data.is_empty() {
                break;
            }
            if flags >> bit & 1 == 0 {
                let (literal, rest) = data.split_at(1);
                output.extend(literal);
                data = rest;
            } else {
                let Some((token, rest)) = data.split_first_chunk() else {
                    return Err(invalid("the VBA source is truncated"));
                };
                copy(u16::from_le_bytes(*token), output)?;
                data = rest;
            }
            if output.len() > CHUNK {
                return Err(invalid("damaged VBA source"));
            }
        }
    }
    Ok(())
}

/// Appends the earlier output that a token refers to. The more output there is, the more bits has the offset.
fn copy(token: u16, output: &mut Vec<u8>) -> io::Result<()> {
    let before = output.len();
    let bits = (usize::BITS - before.saturating_sub(1).leading_zeros()).max(4);
    let length = usize::from(token & 0xffff_u16.checked_shr(bits).unwrap_or(0)) + 3;
    let offset = usize::from(token >> 16_u32.saturating_sub(bits).min(15)) + 1;
    let start = before.checked_sub(offset).ok_or_else(|| invalid("damaged VBA source"))?;
    for index in start..start + length {
        output.extend(output.get(index).copied());
    }
    Ok(())
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

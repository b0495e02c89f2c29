//! LZ4: frames and legacy frames, as in `doc/lz4_Frame_format.md` of LZ4.
//!
//! Blocks are decoded by a library. Its decoder of frames ends without an error at an empty block and at truncated
//! input, and skips no frames.

use std::io;

use lz4_flex::block::decompress_into_with_dict;

use super::members::{self, Member, after_skippable_frames, damaged, truncated};
use crate::unpack::fields::u32_at;
use crate::unpack::unpacker::{Unpacked, Unpacker};

const MAGIC: u32 = 0x184D_2204;
const LEGACY_MAGIC: u32 = 0x184C_2102;

/// Maximum size of a decoded block of a legacy frame, bytes.
const LEGACY_BLOCK: usize = 8 << 20;

/// Maximum distance of a match, bytes.
const WINDOW: usize = 64 << 10;

/// Number of decoded bytes before those outside of the window are removed.
const MAX_KEPT: usize = 1 << 20;

/// Marks a block that is stored as it is.
const IS_STORED: u32 = 1 << 31;

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    let first = u32_at(after_skippable_frames(bytes), 0);
    matches!(first, Some(MAGIC | LEGACY_MAGIC))
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    members::unpack::<Lz4Frame>(bytes, members::unnamed(), unpacker)
}

struct Lz4Frame<'a> {
    input: &'a [u8],
    is_legacy: bool,
    /// Length of the checksums after each block and after the frame, bytes. They are not verified.
    block_checksum: usize,
    content_checksum: usize,
    max_block: usize,
    /// Decoded bytes: the window of earlier blocks, and the current block.
    decoded: Vec<u8>,
    /// Memory for the block that is decoded. Kept, because clearing it for each block would cost more than decoding.
    block: Vec<u8>,
    /// Offset of the next byte of `decoded` to return.
    position: usize,
    is_ended: bool,
    error: Option<io::Error>,
}

impl<'a> Lz4Frame<'a> {
    fn new(input: &'a [u8], max_block: usize) -> Self {
        Self {
            input,
            is_legacy: false,
            block_checksum: 0,
            content_checksum: 0,
            max_block,
            decoded: Vec::new(),
            block: Vec::new(),
            position: 0,
            is_ended: false,
            error: None,
        }
    }

    /// Parses the frame descriptor after the magic number.
    fn parse(input: &'a [u8]) -> Self {
        let (flags, descriptor) = match input {
            [flags, descriptor, ..] => (*flags, *descriptor),
            _ => return Self { error: Some(truncated()), ..Self::new(&[], 0) },
        };
        // 64 KiB, 256 KiB, 1 MiB, 4 MiB.
        let max_block = match (descriptor >> 4) & 7 {
            size @ 4..=7 => 1 << (8 + 2 * u32::from(size)),
            _ => {
                return Self {
                    error: Some(damaged("unknown LZ4 block size")),
                    ..Self::new(&[], 0)
                };
            }
        };
        let length_if = |bit: u8, length| if flags & (1 << bit) != 0 { length } else { 0 };
        // The content size, the identifier of a dictionary, and the checksum of the header.
        let length = 3 + length_if(3, 8) + length_if(0, 4);
        let input = input.get(length..).unwrap_or_default();
        Self {
            block_checksum: length_if(4, 4),
            content_checksum: length_if(2, 4),
            ..Self::new(input, max_block)
        }
    }

    /// Decodes the next block.
    fn decode_block(&mut self) -> io::Result<()> {
        // The next frame starts after the last block of a legacy frame.
        let header = match u32_at(self.input, 0) {
            None if self.is_legacy && self.input.is_empty() => return self.end(),
            None => return Err(truncated()),
            Some(MAGIC | LEGACY_MAGIC | 0x184D_2A50..=0x184D_2A5F) if self.is_legacy => {
                return self.end();
            }
            Some(header) => header,
        };
        self.input = self.input.get(4..).unwrap_or_default();
        if header == 0 && !self.is_legacy {
            self.input = self.input.get(self.content_checksum..).unwrap_or_default();
            return self.end();
        }
        let is_stored = header & IS_STORED != 0 && !self.is_legacy;
        let length = if self.is_legacy { header } else { header & !IS_STORED };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // A compressed block is at most slightly larger than its content.
        if length > self.max_block.saturating_add(self.max_block / 128) {
            return Err(damaged("an LZ4 block is larger than the maximum"));
        }
        let block = self.input.get(..length).unwrap_or(self.input);
        let skipped = length + self.block_checksum;
        self.input = self.input.get(skipped..).unwrap_or_default();
        self.keep_window();
        if is_stored {
            self.decoded.extend_from_slice(block);
        } else {
            self.decompress(block)?;
        }
        if block.len() < length { Err(truncated()) } else { Ok(()) }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the result of a block without an error")]
    fn end(&mut self) -> io::Result<()> {
        self.is_ended = true;
        Ok(())
    }

    /// Removes decoded bytes before the window, if they are many: moving the window costs as much as decoding 64 KiB.
    fn keep_window(&mut self) {
        if self.decoded.len() > MAX_KEPT {
            self.decoded.drain(..self.decoded.len().saturating_sub(WINDOW));
        }
        self.position = self.decoded.len();
    }

    fn decompress(&mut self, compressed: &[u8]) -> io::Result<()> {
        // Each byte gives at most 255 bytes.
        let length = compressed.len().saturating_mul(255).saturating_add(64).min(self.max_block);
        if self.block.len() < length {
            self.block.resize(length, 0);
        }
        let output = self.block.get_mut(..length).unwrap_or_default();
        let start = self.decoded.len().saturating_sub(WINDOW);
        let window = self.decoded.get(start..).unwrap_or_default();
        if let Ok(written) = decompress_into_with_dict(compressed, output, window) {
            self.decoded.extend_from_slice(output.get(..written).unwrap_or_default());
            return Ok(());
        }
        // The decoder returns no length of a partly decoded block, but fills the output in order. This happens once,
        // because the frame ends.
        output.fill(0);
        let _ = decompress_into_with_dict(compressed, output, window);
        let written = output.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.decoded.extend_from_slice(output.get(..written).unwrap_or_default());
        Err(damaged("the LZ4 data is damaged"))
    }
}

impl<'a> Member<'a> for Lz4Frame<'a> {
    fn start(input: &'a [u8]) -> Option<Self> {
        let input = after_skippable_frames(input);
        let (_, rest) = input.split_first_chunk::<4>()?;
        match u32_at(input, 0)? {
            MAGIC => Some(Self::parse(rest)),
            LEGACY_MAGIC => Some(Self { is_legacy: true, ..Self::new(rest, LEGACY_BLOCK) }),
            _ => None,
        }
    }

    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        loop {
            let available = self.decoded.get(self.position..).unwrap_or_default();
            let length = available.len().min(output.len());
            if let (Some(from), Some(to)) = (available.get(..length), output.get_mut(..length))
                && length > 0
            {
                to.copy_from_slice(from);
                self.position += length;
                return Ok(length);
            }
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if self.is_ended {
                return Ok(0);
            }
            self.error = self.decode_block().err();
        }
    }

    fn finish(self) -> (&'a [u8], io::Result<()>) {
        (self.input, Ok(()))
    }
}

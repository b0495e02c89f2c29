//! Zstandard, RFC 8878.

use std::io::{self, Read};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder, errors::FrameDecoderError};

use super::members::{self, Member, after_skippable_frames, damaged, window_too_large};
use crate::unpack::fields::u32_at;
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        unpacker::{MAX_WINDOW, Unpacked, Unpacker},
    },
};

const MAGIC: u32 = 0xFD2F_B528;

/// Magic numbers of the formats before version 0.8, which `zstd` still decodes.
const OLD_MAGICS: std::ops::RangeInclusive<u32> = 0xFD2F_B522..=0xFD2F_B527;

/// Window descriptor of [`MAX_WINDOW`] (section 3.1.1.1.2): 2^(10 + 16) bytes.
const MAX_WINDOW_DESCRIPTOR: u8 = 16 << 3;

/// Flags in the frame header's descriptor (section 3.1.1.1.1).
const SINGLE_SEGMENT: u8 = 1 << 5;

/// Header of the last block of a frame, without content.
const LAST_BLOCK: [u8; 3] = [1, 0, 0];

pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: &MAGIC.to_le_bytes(), offset: 0, extent, is_preferred: false };

/// Returns the length of the shortest header of a frame, if the reserved bit is zero.
fn extent(frame: &[u8]) -> Option<usize> {
    frame.get(4).is_some_and(|descriptor| descriptor & 8 == 0).then_some(6)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    let first = u32_at(after_skippable_frames(bytes), 0);
    first.is_some_and(|magic| magic == MAGIC || OLD_MAGICS.contains(&magic))
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let first = u32_at(after_skippable_frames(bytes), 0);
    if first.is_some_and(|magic| OLD_MAGICS.contains(&magic)) {
        unpacker.note(NoteKind::Unreadable, "format of Zstandard before version 0.8");
        return Ok(());
    }
    members::unpack::<ZstdFrame>(bytes, members::unnamed(), unpacker)
}

struct ZstdFrame<'a> {
    decoder: FrameDecoder,
    input: &'a [u8],
    /// Whether the header declares a window above [`MAX_WINDOW`].
    exceeds_window: bool,
    /// Whether the content is longer than the window. The decoder returns the last bytes at the end of the frame.
    fills_window: bool,
    /// Why decoding ended. Reported after the bytes before are read.
    error: Option<io::Error>,
}

impl ZstdFrame<'_> {
    /// Reads the header. The window is limited to [`MAX_WINDOW`]: the content needs a larger one only if it is longer.
    fn initialize(&mut self) -> io::Result<()> {
        let mut header = self.input.get(..18).unwrap_or(self.input).to_vec();
        let length = header.len();
        if let [_, _, _, _, descriptor, window, ..] = header.as_mut_slice()
            && *descriptor & SINGLE_SEGMENT == 0
            && *window > MAX_WINDOW_DESCRIPTOR
        {
            *window = MAX_WINDOW_DESCRIPTOR;
            self.exceeds_window = true;
        }
        let mut remaining = header.as_slice();
        self.decoder.set_max_window_size(MAX_WINDOW as u64);
        self.decoder.init(&mut remaining).map_err(|error| match error {
            FrameDecoderError::WindowSizeTooBig { .. } => window_too_large(),
            other => io::Error::other(other),
        })?;
        self.input = self.input.get(length - remaining.len()..).unwrap_or_default();
        Ok(())
    }

    /// Decodes one block.
    fn decode_block(&mut self) {
        let blocks = BlockDecodingStrategy::UptoBlocks(1);
        if let Err(error) = self.decoder.decode_blocks(&mut self.input, blocks) {
            self.error = Some(if self.exceeds_window && self.fills_window {
                window_too_large()
            } else {
                io::Error::other(error)
            });
            // The decoder keeps a window of output until the frame ends.
            let mut end = LAST_BLOCK.as_slice().chain([0; 4].as_slice());
            let _ = self.decoder.decode_blocks(&mut end, BlockDecodingStrategy::UptoBlocks(1));
        }
    }
}

impl<'a> Member<'a> for ZstdFrame<'a> {
    fn start(input: &'a [u8]) -> Option<Self> {
        let input = after_skippable_frames(input);
        (u32_at(input, 0)? == MAGIC).then_some(())?;
        let mut frame = Self {
            decoder: FrameDecoder::new(),
            input,
            exceeds_window: false,
            fills_window: false,
            error: None,
        };
        frame.error = frame.initialize().err();
        Some(frame)
    }

    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.decoder.read(output)?;
            if length > 0 {
                self.fills_window |= !self.decoder.is_finished();
                return Ok(length);
            }
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if self.decoder.is_finished() {
                return Ok(0);
            }
            self.decode_block();
        }
    }

    fn finish(self) -> (&'a [u8], io::Result<()>) {
        let expected = self.decoder.get_checksum_from_data();
        let is_valid = expected.is_none() || expected == self.decoder.get_calculated_checksum();
        let result = if is_valid { Ok(()) } else { Err(damaged("the zstd checksum is wrong")) };
        (self.input, result)
    }
}

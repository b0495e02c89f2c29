//! Compression methods: APPNOTE.TXT section 4.4.5.

use std::io::{self, Read};

use deflate64::InflaterManaged;
use flate2::{Decompress, FlushDecompress, Status};
use lzma_rust2::{LzmaReader, XzReader};
use ppmd_rust::{Ppmd8Decoder, RestoreMethod};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder, errors::FrameDecoderError};

use super::implode;
use crate::unpack::fields::{u16_at, u32_at};
use crate::unpack::unpacker::MAX_WINDOW;

/// Method of files that are stored as they are.
pub(super) const STORED: u16 = 0;
const IMPLODE: u16 = 6;
pub(super) const DEFLATE: u16 = 8;
const DEFLATE64: u16 = 9;
const BZIP2: u16 = 12;
pub(super) const LZMA: u16 = 14;
/// Zstandard before it had a number of its own.
const ZSTD_OLD: u16 = 20;
const ZSTD: u16 = 93;
const XZ: u16 = 95;
const PPMD: u16 = 98;

/// General purpose bit of LZMA: a marker ends the stream, section 5.8.9.
pub(super) const MARKER_BIT: u16 = 1 << 1;

/// Memory of an xz decoder with a dictionary of [`MAX_WINDOW`], KiB.
const MAX_XZ_MEMORY: u32 = (64 << 10) + 1024;

/// Returns whether a method has a number in the specification. Other numbers are found where no header is.
pub(super) fn is_registered(method: u16) -> bool {
    matches!(method, 0..=12 | 14 | 16 | 18..=20 | 93..=99)
}

/// Returns a decoder of `input`, which it advances by at least the bytes that it uses. `size` is the size of the
/// unpacked file, or `u64::MAX` if it is unknown.
///
/// # Errors
/// Unknown methods are [`io::ErrorKind::Unsupported`]; a window above the maximum is [`io::ErrorKind::OutOfMemory`].
pub(super) fn open<'r, 'd>(
    method: u16,
    flags: u16,
    size: u64,
    input: &'r mut &'d [u8],
) -> io::Result<Box<dyn Read + 'r>> {
    Ok(match method {
        STORED => Box::new(input),
        DEFLATE => Box::new(Inflate {
            input,
            decoder: Decompress::new(false),
            state: InflateState::Running,
        }),
        DEFLATE64 => {
            let decoder = Box::new(InflaterManaged::new());
            Box::new(Inflate64 { input, decoder, state: InflateState::Running })
        }
        IMPLODE => Box::new(implode::open(input, flags, size)),
        BZIP2 => Box::new(bzip2::bufread::BzDecoder::new(input)),
        LZMA => open_lzma(flags, size, input)?,
        PPMD => open_ppmd(size, input)?,
        ZSTD | ZSTD_OLD => {
            let mut decoder = FrameDecoder::new();
            decoder.set_max_window_size(MAX_WINDOW as u64);
            Box::new(Zstd { input, decoder, is_started: false })
        }
        XZ => Box::new(XzReader::new_mem_limit(input, true, MAX_XZ_MEMORY)),
        _ => return Err(unsupported(method)),
    })
}

/// Returns the error for a method that is not implemented.
fn unsupported(method: u16) -> io::Error {
    let name = match method {
        1 => "shrink",
        2..=5 => "reduce",
        10 | 18 | 19 => "a method of IBM",
        16 => "z/OS CMPSC",
        94 => "MP3",
        96 => "JPEG",
        97 => "WavPack",
        99 => "AES",
        _ => "unknown",
    };
    io::Error::new(io::ErrorKind::Unsupported, format!("zip method {method} ({name})"))
}

/// Opens LZMA with the header of zip: two bytes of version, two bytes of length, properties. Section 5.8.8.
fn open_lzma<'r, 'd>(
    flags: u16,
    size: u64,
    input: &'r mut &'d [u8],
) -> io::Result<Box<dyn Read + 'r>> {
    let truncated = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let length = usize::from(u16_at(input, 2).ok_or_else(truncated)?);
    let properties = *input.get(4).ok_or_else(truncated)?;
    let dictionary = u32_at(input, 5).ok_or_else(truncated)?;
    *input = input.get(4 + length..).ok_or_else(truncated)?;
    if length < 5 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "invalid LZMA properties"));
    }
    let size = if flags & MARKER_BIT == 0 { size } else { u64::MAX };
    // Matches do not reach before the start of the file.
    let dictionary = u64::from(dictionary).min(size.max(4096));
    let dictionary = u32::try_from(dictionary).unwrap_or(u32::MAX);
    if dictionary as usize > MAX_WINDOW {
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, "LZMA dictionary too large"));
    }
    let mut reader = LzmaReader::new_with_props(input, size, properties, dictionary, None)?;
    reader.set_defer_errors(true);
    Ok(Box::new(reader))
}

/// Opens `PPMd`, variant I, after the two bytes of its parameters: section 5.9.
fn open_ppmd<'r, 'd>(size: u64, input: &'r mut &'d [u8]) -> io::Result<Box<dyn Read + 'r>> {
    let parameters = u16_at(input, 0).ok_or(io::ErrorKind::UnexpectedEof)?;
    *input = input.get(2..).unwrap_or_default();
    let order = u32::from(parameters & 0x0f) + 1;
    let memory = (u32::from(parameters >> 4 & 0xff) + 1) << 20;
    let method = match parameters >> 12 {
        0 => RestoreMethod::Restart,
        1 => RestoreMethod::CutOff,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "PPMd restoration method")),
    };
    if memory as usize > MAX_WINDOW {
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, "PPMd memory too large"));
    }
    let decoder = Ppmd8Decoder::new(input, order, memory, method);
    let decoder =
        decoder.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(Box::new(decoder.take(size)))
}

/// State of a decoder of a stream that states its own end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InflateState {
    Running,
    /// The bytes before the error are returned first.
    Failed,
    Done,
}

impl InflateState {
    /// Returns the result of a read after a step of the decoder: `read` bytes of input were used and `written` bytes
    /// are in the buffer. `None` if another step is needed.
    fn after_step(self, read: usize, written: usize, rest: &[u8]) -> Option<io::Result<usize>> {
        if written > 0 || self == Self::Done {
            return Some(Ok(written));
        }
        if self == Self::Failed {
            return Some(Err(io::Error::new(io::ErrorKind::InvalidData, "corrupt deflate stream")));
        }
        if read == 0 || rest.is_empty() {
            return Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "truncated stream")));
        }
        None
    }
}

/// Deflate. Unlike flate2's reader, an error where the input ends too early.
struct Inflate<'r, 'd> {
    input: &'r mut &'d [u8],
    decoder: Decompress,
    state: InflateState,
}

impl Read for Inflate<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (mut read, mut written) = (0, 0);
            if self.state == InflateState::Running && !buffer.is_empty() {
                let (total_in, total_out) = (self.decoder.total_in(), self.decoder.total_out());
                let status = self.decoder.decompress(self.input, buffer, FlushDecompress::None);
                match status {
                    Ok(Status::StreamEnd) => self.state = InflateState::Done,
                    Ok(Status::Ok | Status::BufError) => {}
                    Err(_corrupt) => self.state = InflateState::Failed,
                }
                read = usize::try_from(self.decoder.total_in() - total_in).unwrap_or(0);
                written = usize::try_from(self.decoder.total_out() - total_out).unwrap_or(0);
                *self.input = self.input.get(read..).unwrap_or_default();
            } else if buffer.is_empty() {
                return Ok(0);
            }
            if let Some(result) = self.state.after_step(read, written, self.input) {
                return result;
            }
        }
    }
}

/// Deflate64. Unlike the crate's reader, an error where the input ends too early.
struct Inflate64<'r, 'd> {
    input: &'r mut &'d [u8],
    decoder: Box<InflaterManaged>,
    state: InflateState,
}

impl Read for Inflate64<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (mut read, mut written) = (0, 0);
            if self.state == InflateState::Running && !buffer.is_empty() {
                let result = self.decoder.inflate(self.input, buffer);
                (read, written) = (result.bytes_consumed, result.bytes_written);
                if result.data_error {
                    self.state = InflateState::Failed;
                } else if self.decoder.finished() {
                    self.state = InflateState::Done;
                }
                *self.input = self.input.get(read..).unwrap_or_default();
            } else if buffer.is_empty() {
                return Ok(0);
            }
            if let Some(result) = self.state.after_step(read, written, self.input) {
                return result;
            }
        }
    }
}

/// Zstandard: one or more frames.
struct Zstd<'r, 'd> {
    input: &'r mut &'d [u8],
    decoder: FrameDecoder,
    is_started: bool,
}

impl Zstd<'_, '_> {
    /// Starts the next frame. Returns whether there is one.
    fn next_frame(&mut self) -> io::Result<bool> {
        const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;
        loop {
            let magic = u32_at(self.input, 0);
            if let Some(magic) = magic
                && SKIPPABLE.contains(&magic)
            {
                let length = u32_at(self.input, 4).and_then(|length| usize::try_from(length).ok());
                let end = length.and_then(|length| length.checked_add(8));
                *self.input = end.and_then(|end| self.input.get(end..)).unwrap_or_default();
                continue;
            }
            if self.is_started && magic != Some(0xfd2f_b528) {
                return Ok(false);
            }
            self.is_started = true;
            self.decoder.reset(&mut *self.input).map_err(|error| {
                let kind = match error {
                    FrameDecoderError::WindowSizeTooBig { .. } => io::ErrorKind::OutOfMemory,
                    _ => io::ErrorKind::InvalidData,
                };
                io::Error::new(kind, error.to_string())
            })?;
            return Ok(true);
        }
    }
}

impl Read for Zstd<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.decoder.is_finished() {
                if !self.next_frame()? {
                    return Ok(0);
                }
                continue;
            }
            let strategy = BlockDecodingStrategy::UptoBlocks(1);
            self.decoder
                .decode_blocks(&mut *self.input, strategy)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        }
    }
}

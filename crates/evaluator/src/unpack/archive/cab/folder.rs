//! The data of a folder: blocks of at most 32 KiB, [MS-CAB] section 2.4 to 2.6.

use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress};
use lzxd::{Lzxd, WindowSize};

use super::header::CabFolder;
use crate::unpack::fields::{u16_at, u32_at};

/// Length of the header of a block without reserved data, bytes.
const BLOCK_HEADER: usize = 8;

/// Length of the output before a block that the block can refer to, bytes.
const MSZIP_WINDOW: usize = 32 << 10;

/// Compression of a folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CabMethod {
    Stored,
    MsZip,
    Lzx(WindowSize),
}

impl CabMethod {
    /// Parses the field `typeCompress`.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] for Quantum and unknown methods.
    pub(super) fn parse(field: u16) -> io::Result<Self> {
        let unsupported = |name: &str| Err(io::Error::new(io::ErrorKind::Unsupported, name));
        match (field & 0x0f, field >> 8 & 0x1f) {
            (0, _) => Ok(Self::Stored),
            (1, _) => Ok(Self::MsZip),
            (2, _) => unsupported("Quantum compression in a cabinet"),
            (3, bits) => Ok(Self::Lzx(match bits {
                15 => WindowSize::KB32,
                16 => WindowSize::KB64,
                17 => WindowSize::KB128,
                18 => WindowSize::KB256,
                19 => WindowSize::KB512,
                20 => WindowSize::MB1,
                21 => WindowSize::MB2,
                22 => WindowSize::MB4,
                23 => WindowSize::MB8,
                24 => WindowSize::MB16,
                25 => WindowSize::MB32,
                _ => return unsupported("LZX window of a cabinet"),
            })),
            _ => unsupported("unknown compression in a cabinet"),
        }
    }

    /// Returns the size of the window, bytes.
    pub(super) fn window(self) -> usize {
        match self {
            Self::Stored => 0,
            Self::MsZip => MSZIP_WINDOW,
            Self::Lzx(size) => size as usize,
        }
    }
}

enum CabDecoder {
    Stored,
    /// The last bytes of the output.
    MsZip(Vec<u8>),
    Lzx(Box<Lzxd>),
}

/// Reads the files of a folder, one after the other.
pub(super) struct CabFolderReader<'d> {
    /// The cabinet from the next block on.
    blocks: &'d [u8],
    /// Number of the blocks that follow.
    count: u16,
    /// Length of the reserved data in the header of each block, bytes.
    reserved: usize,
    decoder: CabDecoder,
    /// Output of the current block, from `position` on.
    output: Vec<u8>,
    position: usize,
    /// The error after the output.
    error: Option<io::Error>,
    /// Whether the checksum of a block was wrong.
    pub(super) has_wrong_checksum: bool,
}

impl<'d> CabFolderReader<'d> {
    pub(super) fn new(cabinet: &'d [u8], folder: &CabFolder, method: CabMethod) -> Self {
        let decoder = match method {
            CabMethod::Stored => CabDecoder::Stored,
            CabMethod::MsZip => CabDecoder::MsZip(Vec::new()),
            CabMethod::Lzx(size) => CabDecoder::Lzx(Box::new(Lzxd::new(size))),
        };
        let start = usize::try_from(folder.data_start).unwrap_or(usize::MAX);
        Self {
            blocks: cabinet.get(start..).unwrap_or_default(),
            count: folder.block_count,
            reserved: folder.reserved,
            decoder,
            output: Vec::new(),
            position: 0,
            error: None,
            has_wrong_checksum: false,
        }
    }

    /// Returns the blocks that were read of a folder. `cabinet` is that of the reader.
    pub(super) fn used<'c>(&self, cabinet: &'c [u8], folder: &CabFolder) -> &'c [u8] {
        let start = usize::try_from(folder.data_start).unwrap_or(usize::MAX);
        let end = cabinet.len().saturating_sub(self.blocks.len());
        cabinet.get(start..end).unwrap_or_default()
    }

    /// Decodes the next block. Returns whether there is one.
    fn next_block(&mut self) -> io::Result<bool> {
        let Some(count) = self.count.checked_sub(1) else { return Ok(false) };
        self.count = count;
        let truncated = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let checksum = u32_at(self.blocks, 0).ok_or_else(truncated)?;
        let length = usize::from(u16_at(self.blocks, 4).ok_or_else(truncated)?);
        let size = usize::from(u16_at(self.blocks, 6).ok_or_else(truncated)?);
        let rest = self.blocks.get(BLOCK_HEADER + self.reserved..).ok_or_else(truncated)?;
        let data = rest.get(..length).unwrap_or(rest);
        self.blocks = rest.get(length..).unwrap_or_default();
        if data.len() < length {
            self.error = Some(truncated());
        } else if size == 0 {
            self.error = Some(damaged("a part of a cabinet in several files"));
        }
        // The checksum may be missing. The reserved data would be part of it.
        self.has_wrong_checksum |=
            checksum != 0 && self.reserved == 0 && checksum != block_checksum(data, size);
        self.output.clear();
        self.position = 0;
        let decoded = match &mut self.decoder {
            CabDecoder::Stored => {
                self.output.extend_from_slice(data);
                Ok(())
            }
            CabDecoder::MsZip(window) => mszip(data, size, window, &mut self.output),
            CabDecoder::Lzx(decoder) => match decoder.decompress_next(data, size) {
                Ok(output) => {
                    self.output.extend_from_slice(output);
                    Ok(())
                }
                Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            },
        };
        if let Err(error) = decoded {
            self.error.get_or_insert(error);
        }
        Ok(true)
    }
}

impl Read for CabFolderReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let mut rest = self.output.get(self.position..).unwrap_or_default();
            let length = rest.read(buffer)?;
            if length > 0 {
                self.position += length;
                return Ok(length);
            }
            if let Some(error) = self.error.take() {
                self.count = 0;
                return Err(error);
            }
            if !self.next_block()? {
                return Ok(0);
            }
        }
    }
}

/// Decodes a block of MSZIP: deflate that refers to the output before it, [MS-MCI].
fn mszip(data: &[u8], size: usize, window: &mut Vec<u8>, output: &mut Vec<u8>) -> io::Result<()> {
    let data = data.strip_prefix(b"CK").ok_or_else(|| damaged("an MSZIP block is damaged"))?;
    let mut decoder = Decompress::new(false);
    // The library has no call that sets a dictionary: a stored block has the same effect.
    if let Ok(length) = u16::try_from(window.len())
        && length > 0
    {
        let header = [&[0], &length.to_le_bytes()[..], &(!length).to_le_bytes()].concat();
        let mut discarded = Vec::with_capacity(window.len());
        for part in [&header, &*window] {
            let result = decoder.decompress_vec(part, &mut discarded, FlushDecompress::None);
            result.map_err(|_error| damaged("an MSZIP block is damaged"))?;
        }
    }
    output.reserve_exact(size);
    let result = decoder.decompress_vec(data, output, FlushDecompress::Finish);
    let rest = window.len().saturating_add(output.len()).saturating_sub(MSZIP_WINDOW);
    window.drain(..rest.min(window.len()));
    let start = output.len().saturating_sub(MSZIP_WINDOW);
    window.extend_from_slice(output.get(start..).unwrap_or_default());
    match result {
        Ok(_status) if output.len() == size => Ok(()),
        _ => Err(damaged("an MSZIP block is damaged")),
    }
}

/// Returns the checksum of a block without reserved data, [MS-CAB] section 3.1.
fn block_checksum(data: &[u8], size: usize) -> u32 {
    let (words, rest) = data.as_chunks::<4>();
    let words = words.iter().map(|word| u32::from_le_bytes(*word));
    // The last bytes count from the most significant one on.
    let last = rest.iter().fold(0, |last, byte| last << 8 | u32::from(*byte));
    let sum = words.fold(last, |sum, word| sum ^ word);
    sum ^ u32::try_from(data.len() | size << 16).unwrap_or_default()
}

fn damaged(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

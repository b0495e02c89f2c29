//! Folders: streams that a chain of decoders unpacks to one or more files.

use std::io::{self, Read};

use super::{
    super::coder_output::CoderOutput,
    coder::SevenCoder,
    header_reader::{HeaderReader, SevenDefect},
};
use crate::unpack::unpacker::MAX_WINDOW;

/// Maximum number of decoders in a folder, as in 7-Zip.
const MAX_CODERS: u64 = 32;

/// Maximum number of inputs of all decoders of a folder, as in 7-Zip.
const MAX_INPUTS: u64 = 64;

/// Memory of all decoders of a folder beyond one dictionary, bytes. 7-Zip uses a small dictionary for each of the lists
/// of branches in programs (BCJ2), beside that of the file.
const MAX_SMALL_WINDOWS: usize = 8 << 20;

/// The decoders of a folder, and its streams.
#[derive(Debug)]
pub(super) struct SevenFolder<'h> {
    coders: Vec<SevenCoder<'h>>,
    /// Input and output that are connected. Each decoder has one output.
    bonds: Vec<(u64, u64)>,
    /// The inputs that are packed streams.
    packed_inputs: Vec<u64>,
    /// Size of the output of each decoder, bytes.
    pub(super) unpack_sizes: Vec<u64>,
    /// Offsets and lengths of the packed streams.
    pub(super) packs: Vec<(u64, u64)>,
    pub(super) crc: Option<u32>,
    pub(super) file_count: u64,
}

impl<'h> SevenFolder<'h> {
    /// Parses the definition of a folder, without its sizes.
    pub(super) fn parse(reader: &mut HeaderReader<'h>) -> Result<Self, SevenDefect> {
        let count = reader.number()?;
        if count == 0 || count > MAX_CODERS {
            return Err(SevenDefect::Damaged);
        }
        let (mut coders, mut inputs) = (Vec::new(), 0);
        for _ in 0..count {
            let coder = SevenCoder::parse(reader, inputs)?;
            inputs = coder.inputs.end;
            if inputs > MAX_INPUTS {
                return Err(SevenDefect::Damaged);
            }
            coders.push(coder);
        }
        let mut bonds = Vec::new();
        for _ in 1..count {
            bonds.push((reader.number()?, reader.number()?));
        }
        let mut packed_inputs = Vec::new();
        match inputs.checked_sub(count - 1) {
            None | Some(0) => return Err(SevenDefect::Damaged),
            Some(1) => {
                let is_free = |input: &u64| bonds.iter().all(|(bound, _)| bound != input);
                packed_inputs.extend((0..inputs).find(is_free));
            }
            Some(count) => {
                for _ in 0..count {
                    packed_inputs.push(reader.number()?);
                }
            }
        }
        Ok(Self {
            coders,
            bonds,
            packed_inputs,
            unpack_sizes: Vec::new(),
            packs: Vec::new(),
            crc: None,
            file_count: 0,
        })
    }

    pub(super) fn coder_count(&self) -> u64 {
        self.coders.len() as u64
    }

    pub(super) fn pack_count(&self) -> usize {
        self.packed_inputs.len()
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.coders.iter().any(SevenCoder::is_encryption)
    }

    /// Returns whether only 7-Zip has one of the decoders.
    pub(super) fn is_unusual(&self) -> bool {
        self.coders.iter().any(SevenCoder::is_unusual)
    }

    /// Returns the decoder whose output is that of the folder.
    fn main_coder(&self) -> Option<usize> {
        let is_free = |index: &usize| self.bonds.iter().all(|(_, bound)| *bound != *index as u64);
        (0..self.coders.len()).find(is_free)
    }

    /// Returns the size of all files, bytes.
    pub(super) fn unpack_size(&self) -> u64 {
        let size = self.main_coder().and_then(|index| self.unpack_sizes.get(index));
        size.copied().unwrap_or_default()
    }

    /// Returns the memory that the decoders need, bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::OutOfMemory`] if that is too much.
    pub(super) fn window(&self) -> io::Result<usize> {
        let mut sum: usize = 0;
        for (coder, size) in self.coders.iter().zip(&self.unpack_sizes) {
            let window = coder.window(*size)?;
            sum = sum.saturating_add(window);
            if window > MAX_WINDOW || sum > MAX_WINDOW + MAX_SMALL_WINDOWS {
                let reason = "the compression needs a window above 64 MiB";
                return Err(io::Error::new(io::ErrorKind::OutOfMemory, reason));
            }
        }
        Ok(sum)
    }

    /// Returns a reader of all files, one after the other. [`Self::window`] must have succeeded. `data` is the archive
    /// after its start header.
    pub(super) fn open<'d>(&self, data: &'d [u8]) -> io::Result<Box<dyn Read + 'd>> {
        let main = self.main_coder().ok_or_else(invalid)?;
        let mut sources = FolderSources {
            packs: self.packed(data).map(Some).collect(),
            is_used: vec![false; self.coders.len()],
        };
        let decoder = self.open_coder(main, &mut sources)?;
        Ok(Box::new(CoderOutput::new(decoder, false)))
    }

    /// Returns the packed streams. `data` is the archive after its start header.
    pub(super) fn packed<'d>(&self, data: &'d [u8]) -> impl Iterator<Item = &'d [u8]> {
        self.packs.iter().map(|(start, length)| part(data, *start, *length))
    }

    fn open_coder<'d>(
        &self,
        index: usize,
        sources: &mut FolderSources<'d>,
    ) -> io::Result<Box<dyn Read + 'd>> {
        let is_used = sources.is_used.get_mut(index).ok_or_else(invalid)?;
        // A decoder that gets its own output as input would never end.
        if std::mem::replace(is_used, true) {
            return Err(invalid());
        }
        let coder = self.coders.get(index).ok_or_else(invalid)?;
        let mut inputs = Vec::new();
        for input in coder.inputs.clone() {
            let output = self.bonds.iter().find(|(bound, _)| *bound == input);
            inputs.push(match output {
                Some((_, output)) => {
                    let index = usize::try_from(*output).map_err(|_overflow| invalid())?;
                    Box::new(CoderOutput::new(self.open_coder(index, sources)?, true))
                }
                None => {
                    sources.pack(self.packed_inputs.iter().position(|other| *other == input))?
                }
            });
        }
        coder.open(inputs, self.unpack_sizes.get(index).copied().unwrap_or_default())
    }
}

/// What the decoders of a folder read.
struct FolderSources<'d> {
    /// The packed streams. Each is read once.
    packs: Vec<Option<&'d [u8]>>,
    /// The decoders whose output is connected.
    is_used: Vec<bool>,
}

impl<'d> FolderSources<'d> {
    fn pack(&mut self, index: Option<usize>) -> io::Result<Box<dyn Read + 'd>> {
        let pack = index.and_then(|index| self.packs.get_mut(index)).and_then(Option::take);
        pack.map(|pack| Box::new(pack) as Box<dyn Read>).ok_or_else(invalid)
    }
}

/// Returns a part of the data, as far as they reach.
fn part(data: &[u8], start: u64, length: u64) -> &[u8] {
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    let rest = data.get(start..).unwrap_or_default();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    rest.get(..length).unwrap_or(rest)
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the decoders of a 7z folder are not connected")
}

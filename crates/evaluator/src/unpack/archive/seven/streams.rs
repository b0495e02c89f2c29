//! Lists of packed streams, folders and files in folders: the header `StreamsInfo`.
//!
//! A header states up to millions of entries, so no list is held in memory: cursors advance through all lists at the same
//! time.

use super::{
    folder::SevenFolder,
    header_reader::{HeaderReader, SevenDefect, SevenDigests},
};

pub(super) const END: u64 = 0x00;
const PACK_INFO: u64 = 0x06;
const UNPACK_INFO: u64 = 0x07;
const SUB_STREAMS_INFO: u64 = 0x08;
const SIZE: u64 = 0x09;
const CRC: u64 = 0x0a;
const FOLDER: u64 = 0x0b;
const UNPACK_SIZE: u64 = 0x0c;
const SUB_STREAM_COUNT: u64 = 0x0d;

/// A file in a folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct SubStream {
    /// Bytes.
    pub(super) size: u64,
    pub(super) crc: Option<u32>,
}

/// A header about streams, with cursors at the next folder and its files.
#[derive(Default)]
pub(super) struct SevenStreams<'h> {
    /// Offset of the next packed stream, bytes after the start header.
    pack_start: u64,
    pack_sizes: HeaderReader<'h>,
    /// Number of the folders that follow.
    folder_count: u64,
    folders: HeaderReader<'h>,
    unpack_sizes: HeaderReader<'h>,
    folder_digests: SevenDigests<'h>,
    /// Number of files in each folder; one if it is not stated.
    sub_counts: Option<HeaderReader<'h>>,
    /// Sizes of all files, the last one in each folder excepted.
    sub_sizes: Option<HeaderReader<'h>>,
    sub_digests: SevenDigests<'h>,
}

impl<'h> SevenStreams<'h> {
    pub(super) fn parse(reader: &mut HeaderReader<'h>) -> Result<Self, SevenDefect> {
        let mut streams = Self::default();
        loop {
            match reader.number()? {
                END => return Ok(streams),
                PACK_INFO => streams.parse_packs(reader)?,
                UNPACK_INFO => streams.parse_folders(reader)?,
                SUB_STREAMS_INFO => streams.parse_sub_streams(reader)?,
                _ => return Err(SevenDefect::Damaged),
            }
        }
    }

    fn parse_packs(&mut self, reader: &mut HeaderReader<'h>) -> Result<(), SevenDefect> {
        self.pack_start = reader.number()?;
        let count = reader.number()?;
        loop {
            match reader.number()? {
                END => return Ok(()),
                SIZE => {
                    self.pack_sizes = *reader;
                    reader.skip_numbers(count)?;
                }
                CRC => _ = SevenDigests::parse(reader, count)?,
                _ => reader.skip_property()?,
            }
        }
    }

    fn parse_folders(&mut self, reader: &mut HeaderReader<'h>) -> Result<(), SevenDefect> {
        if reader.number()? != FOLDER {
            return Err(SevenDefect::Damaged);
        }
        let count = reader.number()?;
        if reader.byte()? != 0 {
            return Err(SevenDefect::External);
        }
        self.folders = *reader;
        let mut coders = 0;
        for _ in 0..count {
            coders += SevenFolder::parse(reader)?.coder_count();
        }
        loop {
            match reader.number()? {
                END => break,
                UNPACK_SIZE => {
                    self.unpack_sizes = *reader;
                    reader.skip_numbers(coders)?;
                }
                CRC => self.folder_digests = SevenDigests::parse(reader, count)?,
                _ => reader.skip_property()?,
            }
        }
        self.folder_count = count;
        Ok(())
    }

    fn parse_sub_streams(&mut self, reader: &mut HeaderReader<'h>) -> Result<(), SevenDefect> {
        loop {
            match reader.number()? {
                END => return Ok(()),
                SUB_STREAM_COUNT => {
                    self.sub_counts = Some(*reader);
                    reader.skip_numbers(self.folder_count)?;
                }
                SIZE => {
                    self.sub_sizes = Some(*reader);
                    for count in self.counts() {
                        reader.skip_numbers(count.saturating_sub(1))?;
                    }
                }
                CRC => {
                    let mut folder_digests = self.folder_digests;
                    let missing = self.counts().map(|count| match folder_digests.next() {
                        Some(_) if count == 1 => 0,
                        _ => count,
                    });
                    let count = missing.fold(0, u64::saturating_add);
                    self.sub_digests = SevenDigests::parse(reader, count)?;
                }
                _ => reader.skip_property()?,
            }
        }
    }

    /// Returns the number of files in each folder.
    fn counts(&self) -> impl Iterator<Item = u64> + use<'h> {
        let mut counts = self.sub_counts;
        // The numbers are in the header.
        (0..self.folder_count)
            .map(move |_| counts.as_mut().map_or(1, |counts| counts.number().unwrap_or_default()))
    }

    /// Returns the next folder. Its files must be read before the one after it.
    pub(super) fn next_folder(&mut self) -> Result<Option<SevenFolder<'h>>, SevenDefect> {
        let Some(rest) = self.folder_count.checked_sub(1) else { return Ok(None) };
        self.folder_count = rest;
        let mut folder = SevenFolder::parse(&mut self.folders)?;
        for _ in 0..folder.coder_count() {
            folder.unpack_sizes.push(self.unpack_sizes.number()?);
        }
        for _ in 0..folder.pack_count() {
            let size = self.pack_sizes.number()?;
            folder.packs.push((self.pack_start, size));
            self.pack_start = self.pack_start.saturating_add(size);
        }
        folder.crc = self.folder_digests.next();
        folder.file_count = match &mut self.sub_counts {
            Some(counts) => counts.number()?,
            None => 1,
        };
        if folder.file_count > 1 && self.sub_sizes.is_none() {
            return Err(SevenDefect::Damaged);
        }
        Ok(Some(folder))
    }

    /// Returns the next file in `folder`, whose other files up to this one have `used` bytes.
    pub(super) fn next_file(
        &mut self,
        folder: &SevenFolder<'_>,
        index: u64,
        used: u64,
    ) -> Result<SubStream, SevenDefect> {
        let is_last = index.saturating_add(1) == folder.file_count;
        let size = match &mut self.sub_sizes {
            Some(sizes) if !is_last => sizes.number()?,
            _ => folder.unpack_size().checked_sub(used).ok_or(SevenDefect::Damaged)?,
        };
        let crc = match folder.crc {
            Some(crc) if folder.file_count == 1 => Some(crc),
            _ => self.sub_digests.next(),
        };
        Ok(SubStream { size, crc })
    }
}

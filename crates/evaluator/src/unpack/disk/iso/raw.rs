//! Images of raw sectors (`.bin`): ECMA-130, section 14.

use std::io::{self, Read};

use super::sector::SECTOR;

/// Start of each raw sector.
const SYNCHRONIZATION: [u8; 12] = [0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0];

/// Sizes of a raw sector without and with subchannels, bytes.
const RAW_SECTORS: [usize; 2] = [2352, 2448];

/// The data in an image of raw sectors.
#[derive(Clone, Copy)]
pub(super) struct RawImage<'a> {
    bytes: &'a [u8],
    sector: usize,
    /// Offset in the data that is read next.
    position: usize,
}

impl<'a> RawImage<'a> {
    /// Returns the image if its sectors are raw and have a volume descriptor.
    pub(super) fn detect(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(&SYNCHRONIZATION) {
            return None;
        }
        let has_size = |size: usize| {
            bytes.get(size..).is_some_and(|second| second.starts_with(&SYNCHRONIZATION))
        };
        let sector = RAW_SECTORS.into_iter().find(|size| has_size(*size))?;
        let image = Self { bytes, sector, position: 0 };
        let descriptor = image.data(16)?;
        descriptor.get(1..).is_some_and(|start| start.starts_with(b"CD001")).then_some(image)
    }

    /// Returns the data of a sector.
    fn data(&self, sector: usize) -> Option<&'a [u8]> {
        let sector = self.bytes.get(sector.checked_mul(self.sector)?..)?;
        // The data follow the header of 16 bytes, and a subheader of 8 bytes in mode 2.
        let start = if sector.get(15) == Some(&2) { 24 } else { 16 };
        let data = sector.get(start..)?;
        Some(data.get(..SECTOR).unwrap_or(data))
    }
}

impl Read for RawImage<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let data = self.data(self.position / SECTOR).unwrap_or_default();
        let length = data.get(self.position % SECTOR..).unwrap_or_default().read(output)?;
        self.position += length;
        Ok(length)
    }
}

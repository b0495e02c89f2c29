//! Checks the unpacked bytes of a file in an archive.

use std::io::{self, Read};

use flate2::Crc;

/// Computes the size and CRC-32 of what is read.
pub(in crate::unpack) struct Checked<'c, R> {
    reader: R,
    crc: Crc,
    /// The stated CRC-32. If there is none, any is right.
    stated: &'c [u32],
    /// Whether errors end the file without an error for the caller.
    pub(in crate::unpack) is_quiet: bool,
    /// Number of bytes that were read.
    pub(in crate::unpack) size: u64,
    /// The error of the reader, or that the CRC-32 is wrong.
    pub(in crate::unpack) error: Option<io::Error>,
    /// Whether the end was reached without an error of the reader.
    pub(in crate::unpack) is_complete: bool,
}

impl<'c, R: Read> Checked<'c, R> {
    pub(in crate::unpack) fn new(reader: R, stated: &'c [u32]) -> Self {
        Self {
            reader,
            crc: Crc::new(),
            stated,
            is_quiet: false,
            size: 0,
            error: None,
            is_complete: false,
        }
    }

    /// Returns whether none of the stated CRC-32 is that of the bytes before the end.
    pub(in crate::unpack) fn has_wrong_checksum(&self) -> bool {
        self.is_complete && !self.stated.is_empty() && !self.stated.contains(&self.crc.sum())
    }

    /// Keeps an error, and returns a copy if it is not to be suppressed.
    fn fail(&mut self, error: io::Error) -> io::Result<usize> {
        let copy = io::Error::new(error.kind(), error.to_string());
        self.error = Some(error);
        if self.is_quiet { Ok(0) } else { Err(copy) }
    }
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.error.is_some() || self.is_complete || buffer.is_empty() {
            return Ok(0);
        }
        let length = match self.reader.read(buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return self.fail(error),
        };
        self.crc.update(buffer.get(..length).unwrap_or_default());
        self.size += length as u64;
        self.is_complete = length == 0;
        if self.has_wrong_checksum() && !self.is_quiet {
            let error = io::Error::new(io::ErrorKind::InvalidData, "wrong CRC-32 of a file");
            return Err(error);
        }
        Ok(length)
    }
}

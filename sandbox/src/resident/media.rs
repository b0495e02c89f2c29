//! The media of a job, as its child reads it.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::uio::pread;

/// The media of one job. Read rather than mapped: the server has the file open for writing.
#[derive(Debug)]
pub struct JobMedia {
    pub(super) file: BorrowedFd<'static>,
    pub(super) length: usize,
    pub(super) argument: u32,
}

impl JobMedia {
    /// Returns the argument of the job, see [`Resident::evaluate`](crate::Resident::evaluate).
    #[must_use]
    pub fn argument(&self) -> u32 {
        self.argument
    }

    /// Returns the length at the start of the job, bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length as u64
    }

    /// Returns whether the media has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reads bytes at an offset. Returns their number, which is 0 only at the end of the media, and for an empty buffer.
    ///
    /// # Errors
    /// As pread(2), except for interruptions.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let offset = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
        loop {
            match pread(self.file, buffer, offset) {
                Err(Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Reads all bytes.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at); `EIO` if the media is shorter than at the start of the job.
    pub fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, read as u64)? {
                0 => return Err(Errno::EIO.into()),
                count => read += count,
            }
        }
        Ok(bytes)
    }
}

//! Read-only access of engines to the plaintext that was hashed.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use mcs_sandbox::Job;

use crate::tenancy::TenantGroup;

/// Maximum length of a chunk, bytes.
pub(super) const CHUNK_SIZE: usize = 128 * 1024;

/// The plaintext of a file. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sample {
    file: Arc<File>,
    len: u64,
}

/// A file that engines may access.
pub struct SampleAccess<'a> {
    /// The plaintext.
    pub sample: &'a Sample,
    /// The tenant that scans are counted against.
    pub(crate) tenant: TenantGroup,
    /// The sandbox job with the file; `None` if no script runs.
    pub job: Option<&'a mut Job>,
    /// Whether programs in the sandbox cannot change the plaintext.
    pub tamper_proof: bool,
}

impl<'a> SampleAccess<'a> {
    /// Returns the access of engines that need no sandbox job.
    #[must_use]
    pub fn without_job(sample: &'a Sample) -> Self {
        Self { sample, tenant: TenantGroup::default(), job: None, tamper_proof: true }
    }
}

impl Sample {
    /// Opens the contents of `file` read-only, even if `file` is writable. Blocking.
    ///
    /// # Errors
    /// The file cannot be opened through `/proc/self/fd`, or has no metadata.
    pub fn from_file(file: &File) -> io::Result<Self> {
        let file = reopen_read_only(file)?;
        let len = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), len })
    }

    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Opens a descriptor for another process: read-only, with a position of its own.
    pub(super) fn descriptor(&self) -> io::Result<File> {
        reopen_read_only(&self.file)
    }

    /// Reads the bytes at `offset`, at most `max` and at most [`CHUNK_SIZE`]. Returns no bytes at or beyond the end.
    pub(super) async fn read_chunk(&self, offset: u64, max: u64) -> io::Result<Bytes> {
        let file = Arc::clone(&self.file);
        let length = self.len.saturating_sub(offset).min(max).min(CHUNK_SIZE as u64);
        let read = move || {
            let mut chunk = BytesMut::zeroed(usize::try_from(length).unwrap_or(CHUNK_SIZE));
            file.read_exact_at(&mut chunk, offset)?;
            Ok(chunk.freeze())
        };
        tokio::task::spawn_blocking(read).await?
    }
}

/// Opens the same file again, because duplicated descriptors share access mode and position. See open(2), proc(5).
fn reopen_read_only(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    /// Returns a sample with these bytes.
    pub(in crate::scan::engines) fn sample(bytes: &[u8]) -> Sample {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Sample::from_file(&file).unwrap()
    }

    #[test]
    fn descriptor_is_read_only_and_has_its_own_position() {
        let sample = sample(b"media");
        let mut descriptor = sample.descriptor().unwrap();
        assert!(descriptor.write_all(b"x").is_err());
        assert!(descriptor.set_len(0).is_err());
        descriptor.seek(io::SeekFrom::End(0)).unwrap();
        let mut content = String::new();
        sample.descriptor().unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "media", "the second descriptor starts at 0");
    }

    #[tokio::test]
    async fn read_chunk_stops_at_limit_and_at_end() {
        let bytes: Vec<u8> = (0..=250).cycle().take(CHUNK_SIZE + 10).collect();
        let sample = sample(&bytes);
        assert_eq!(sample.read_chunk(0, 4).await.unwrap(), bytes[..4]);
        assert_eq!(sample.read_chunk(0, u64::MAX).await.unwrap().len(), CHUNK_SIZE);
        assert_eq!(
            sample.read_chunk(CHUNK_SIZE as u64, u64::MAX).await.unwrap(),
            bytes[CHUNK_SIZE..]
        );
        assert!(sample.read_chunk(bytes.len() as u64, 1).await.unwrap().is_empty());
        assert!(sample.read_chunk(u64::MAX, 1).await.unwrap().is_empty());
    }
}

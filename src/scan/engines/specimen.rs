//! A media as engines get it: the bytes that were hashed, to be read and nothing else.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};

use crate::scan::encrypted::{self, Encryption};

/// What is read at a time.
pub(super) const PIECE: usize = 128 * 1024;

/// A media's plaintext. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Specimen {
    file: Arc<File>,
    len: u64,
}

impl Specimen {
    /// What `file` holds, whatever it may be written by. Blocking.
    ///
    /// # Errors
    /// Without /proc, above all.
    pub fn of(file: &File) -> io::Result<Self> {
        let file = read_only(file)?;
        let len = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), len })
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is encrypted, if headers show it. Blocking.
    pub(super) fn encryption(&self) -> io::Result<Option<Encryption>> {
        encrypted::detect(&*self.file, self.len)
    }

    /// A descriptor to be given away: nobody can write by it, and its position is its own.
    pub(super) fn descriptor(&self) -> io::Result<File> {
        read_only(&self.file)
    }

    /// The bytes from here on, at most `max` and at most [`PIECE`]; none at the end.
    pub(super) async fn piece(&self, at: u64, max: u64) -> io::Result<Bytes> {
        let file = Arc::clone(&self.file);
        let length = self.len.saturating_sub(at).min(max).min(PIECE as u64);
        let read = move || {
            let mut piece = BytesMut::zeroed(usize::try_from(length).unwrap_or(PIECE));
            file.read_exact_at(&mut piece, at)?;
            Ok(piece.freeze())
        };
        tokio::task::spawn_blocking(read).await?
    }
}

/// The same file, opened anew: duplicates of a descriptor share its mode and its position. open(2), proc(5).
fn read_only(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    /// A specimen of these bytes.
    pub(in crate::scan::engines) fn specimen(bytes: &[u8]) -> Specimen {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Specimen::of(&file).unwrap()
    }

    #[test]
    fn nobody_can_write_by_a_descriptor_that_was_given_away() {
        let specimen = specimen(b"media");
        let mut given = specimen.descriptor().unwrap();
        assert!(given.write_all(b"x").is_err());
        assert!(given.set_len(0).is_err());
        given.seek(io::SeekFrom::End(0)).unwrap();
        let mut other = String::new();
        specimen.descriptor().unwrap().read_to_string(&mut other).unwrap();
        assert_eq!(other, "media", "from its own position");
    }

    #[tokio::test]
    async fn pieces_end_where_the_media_does() {
        let bytes: Vec<u8> = (0..=250).cycle().take(PIECE + 10).collect();
        let specimen = specimen(&bytes);
        assert_eq!(specimen.piece(0, 4).await.unwrap(), bytes[..4]);
        assert_eq!(specimen.piece(0, u64::MAX).await.unwrap().len(), PIECE);
        assert_eq!(specimen.piece(PIECE as u64, u64::MAX).await.unwrap(), bytes[PIECE..]);
        assert!(specimen.piece(bytes.len() as u64, 1).await.unwrap().is_empty());
        assert!(specimen.piece(u64::MAX, 1).await.unwrap().is_empty());
    }
}

//! Bodies of media, in memory or on the spool.

use std::sync::Arc;

use bytes::Bytes;

use super::{error::IngestError, spool::SpooledFile};

/// Bytes served for a file; the same bytes that were hashed. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Body {
    /// A small body, held in memory.
    Memory(Bytes),
    /// A body on the spool, in a file that only this process can write.
    File(Arc<SpooledFile>),
}

impl Body {
    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `process` with consecutive chunks of the whole body. Blocking.
    pub(crate) fn for_each_chunk(
        &self,
        mut process: impl FnMut(&[u8]) -> Result<(), IngestError>,
    ) -> Result<(), IngestError> {
        let file = match self {
            Self::Memory(bytes) => return process(bytes),
            Self::File(file) => file,
        };
        let mut buffer = vec![0; 256 * 1024];
        let mut offset = 0;
        while offset < file.len() {
            let n = file.read_at(&mut buffer, offset).map_err(IngestError::Disk)?;
            if n == 0 {
                return Err(IngestError::Disk(std::io::ErrorKind::UnexpectedEof.into()));
            }
            process(buffer.get(..n).unwrap_or_default())?;
            offset += n as u64;
        }
        Ok(())
    }

    /// Reads the whole body into memory. For small bodies only. Blocking.
    pub(crate) fn into_memory(self) -> Result<Bytes, IngestError> {
        if let Self::Memory(bytes) = self {
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(0));
        self.for_each_chunk(|chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes.into())
    }
}

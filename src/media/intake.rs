//! (being written) Takes a body's bytes as they come: unzips, bounds, hashes, decrypts, writes.

/// Why bytes could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Over `download.max_size`.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// The spool's budget is used up.
    #[error("the spool's budget is used up")]
    SpoolFull,
    /// Disk full, read-only, gone.
    #[error("the disk failed")]
    Disk(#[source] std::io::Error),
    /// A gzip body that is none.
    #[error("the body's gzip encoding is broken")]
    BadGzip(#[source] std::io::Error),
    /// The ciphertext is not the one that the client's hash names.
    #[error("the ciphertext's SHA-256 is not the one given")]
    HashMismatch,
}

/// Takes a body's bytes in; all of it is blocking.
pub struct Intake {}

impl Intake {
    /// Takes the next bytes of the body as they came from the homeserver.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), IntakeError> {
        let _ = chunk;
        todo!()
    }
}

//! The blocking part of a download: decodes gzip, limits the decoded size and writes to a target.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

use super::error::{FetchError, IngestError};

/// Decodes a response body and writes it to `T`.
pub(super) struct Decoder<T>(Encoding<T>);

enum Encoding<T> {
    Identity(LimitedWriter<T>),
    Gzip(Box<MultiGzDecoder<LimitedWriter<T>>>),
}

struct LimitedWriter<T> {
    target: T,
    write: fn(&mut T, &[u8]) -> Result<(), IngestError>,
    remaining: u64,
    limit: u64,
    /// The error that stopped writing, since the gzip decoder returns an `io::Error` only.
    error: Option<FetchError>,
}

impl<T> Decoder<T> {
    /// Creates a decoder that writes at most `limit` bytes to `target`, by calling `write`.
    pub(super) fn new(
        target: T,
        write: fn(&mut T, &[u8]) -> Result<(), IngestError>,
        limit: u64,
        gzip: bool,
    ) -> Self {
        let writer = LimitedWriter { target, write, remaining: limit, limit, error: None };
        Self(if gzip {
            Encoding::Gzip(Box::new(MultiGzDecoder::new(writer)))
        } else {
            Encoding::Identity(writer)
        })
    }

    /// Decodes the next bytes of the body. Blocking.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        match &mut self.0 {
            Encoding::Identity(writer) => writer.write_chunk(bytes),
            Encoding::Gzip(decoder) => {
                let result = decoder.write_all(bytes);
                result.map_err(|error| {
                    decoder.get_mut().error.take().unwrap_or_else(|| invalid_gzip(&error))
                })
            }
        }
    }

    /// Ends the body and returns the target. Blocking.
    pub(super) fn finish(self) -> Result<T, FetchError> {
        match self.0 {
            Encoding::Identity(writer) => Ok(writer.target),
            Encoding::Gzip(mut decoder) => {
                let result = decoder.try_finish();
                result.map_err(|error| {
                    decoder.get_mut().error.take().unwrap_or_else(|| invalid_gzip(&error))
                })?;
                decoder.finish().map(|writer| writer.target).map_err(|error| invalid_gzip(&error))
            }
        }
    }
}

fn invalid_gzip(error: &io::Error) -> FetchError {
    FetchError::NotMedia(format!("invalid gzip encoding ({error})"))
}

impl<T> LimitedWriter<T> {
    fn write_chunk(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.remaining = self
            .remaining
            .checked_sub(bytes.len() as u64)
            .ok_or(FetchError::TooLarge { limit: self.limit })?;
        (self.write)(&mut self.target, bytes).map_err(|error| match error {
            IngestError::TooLarge { limit } => FetchError::TooLarge { limit },
            other => FetchError::Ingest(other),
        })
    }
}

impl<T> Write for LimitedWriter<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.write_chunk(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::Error::other("writing failed"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

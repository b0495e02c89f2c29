//! The blocking half of a download: unzips a body where it comes as gzip, counts what comes out,
//! and hands it on. Knows neither network nor files; runs off the async threads.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

use super::{FetchError, intake::IntakeError};

/// Takes bytes as they came and writes the media's bytes into `T`.
pub(super) struct Pump<T>(Way<T>);

enum Way<T> {
    Plain(Counted<T>),
    Gzip(Box<MultiGzDecoder<Counted<T>>>),
}

struct Counted<T> {
    target: T,
    write: fn(&mut T, &[u8]) -> Result<(), IntakeError>,
    left: u64,
    limit: u64,
    /// Why writing stopped: the decoder passes on an `io::Error` only.
    failed: Option<FetchError>,
}

impl<T> Pump<T> {
    /// A pump into `target` by `write`, for at most `limit` bytes.
    pub(super) fn new(
        target: T,
        write: fn(&mut T, &[u8]) -> Result<(), IntakeError>,
        limit: u64,
        gzip: bool,
    ) -> Self {
        let counted = Counted { target, write, left: limit, limit, failed: None };
        Self(if gzip {
            Way::Gzip(Box::new(MultiGzDecoder::new(counted)))
        } else {
            Way::Plain(counted)
        })
    }

    /// The next bytes as they came. Blocking.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        match &mut self.0 {
            Way::Plain(counted) => counted.take(bytes),
            Way::Gzip(decoder) => {
                let done = decoder.write_all(bytes);
                done.map_err(|error| decoder.get_mut().failed.take().unwrap_or_else(|| bad(&error)))
            }
        }
    }

    /// The body has ended. Blocking.
    pub(super) fn finish(self) -> Result<T, FetchError> {
        match self.0 {
            Way::Plain(counted) => Ok(counted.target),
            Way::Gzip(mut decoder) => {
                let done = decoder.try_finish();
                done.map_err(|error| {
                    decoder.get_mut().failed.take().unwrap_or_else(|| bad(&error))
                })?;
                decoder.finish().map(|counted| counted.target).map_err(|error| bad(&error))
            }
        }
    }
}

fn bad(error: &io::Error) -> FetchError {
    FetchError::NotMedia(format!("a broken gzip encoding ({error})"))
}

impl<T> Counted<T> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or(FetchError::TooLarge { limit: self.limit })?;
        (self.write)(&mut self.target, bytes).map_err(|error| match error {
            IntakeError::TooLarge { limit } => FetchError::TooLarge { limit },
            other => FetchError::Intake(other),
        })
    }
}

impl<T> Write for Counted<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.take(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("stopped"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

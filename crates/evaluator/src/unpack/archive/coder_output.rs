//! Reads the output of a decoder so that an error loses little of what was decoded before it.

use std::io::{self, Read};

/// Number of bytes that are decoded by one call, at the start of a stream and after it. Some decoders return nothing of a
/// call in which they find an error.
const MIN_READ: u64 = 64;
const MAX_READ: u64 = 4096;

/// The output of a decoder.
pub(in crate::unpack) struct CoderOutput<'d> {
    decoder: Box<dyn Read + 'd>,
    /// Number of decoded bytes.
    produced: u64,
    /// Whether another decoder reads the output. An error is the end of the output then, because that decoder loses what
    /// it has read before an error.
    is_inner: bool,
}

impl<'d> CoderOutput<'d> {
    pub(in crate::unpack) fn new(decoder: Box<dyn Read + 'd>, is_inner: bool) -> Self {
        Self { decoder, produced: 0, is_inner }
    }
}

impl Read for CoderOutput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.produced.clamp(MIN_READ, MAX_READ);
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
        let length = match self.decoder.read(buffer.get_mut(..length).unwrap_or_default()) {
            Err(error) if self.is_inner && error.kind() != io::ErrorKind::Interrupted => 0,
            result => result?,
        };
        self.produced = self.produced.saturating_add(length as u64);
        Ok(length)
    }
}

//! Decoders of delharc as readers.

use std::io::{self, Read};

use delharc::{
    CompressionMethod,
    decode::{Decoder, DecoderAny},
};

use super::coder_output::CoderOutput;

/// Returns a reader of a file of `size` bytes that is compressed as LHA does.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] for an unknown method.
pub(super) fn open(method: [u8; 5], data: &[u8], size: u64) -> io::Result<CoderOutput<'_>> {
    let unsupported = || io::Error::new(io::ErrorKind::Unsupported, "LZH method");
    let method = CompressionMethod::try_from(&method).map_err(|_unknown| unsupported())?;
    let decoder = DecoderAny::new_from_compression(method, data);
    if !decoder.is_supported() {
        return Err(unsupported());
    }
    Ok(CoderOutput::new(Box::new(LzhReader { decoder, rest: size }), false))
}

struct LzhReader<'d> {
    decoder: DecoderAny<&'d [u8]>,
    /// Bytes of the file that follow. The data do not state their end.
    rest: u64,
}

impl Read for LzhReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.rest).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        if length > 0 {
            let result = self.decoder.fill_buffer(buffer);
            result
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            self.rest -= length as u64;
        }
        Ok(length)
    }
}

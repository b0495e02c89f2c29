//! bzip2 of an input that is a reader.

use std::io::{self, Read};

use bzip2::{Decompress, Status};

/// Length of the input that is read at once, bytes.
const INPUT: usize = 4096;

/// Decodes streams that follow each other. Unlike the reader of the library, returns what is decoded in the call that
/// finds an error: the checksum of a block is verified together with its last byte.
pub(super) struct Bzip2Reader<R> {
    reader: R,
    input: Vec<u8>,
    position: usize,
    decoder: Decompress,
    /// Whether the current stream has ended, so that another one may follow.
    is_ended: bool,
    error: Option<io::Error>,
}

impl<R: Read> Bzip2Reader<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            input: Vec::new(),
            position: 0,
            decoder: Decompress::new(false),
            is_ended: false,
            error: None,
        }
    }

    /// Reads more input if there is none. Returns whether there is any.
    fn fill(&mut self) -> io::Result<bool> {
        if self.position == self.input.len() {
            self.input.resize(INPUT, 0);
            self.position = 0;
            let length =
                self.reader.read(&mut self.input).inspect_err(|_error| self.input.clear())?;
            self.input.truncate(length);
        }
        Ok(!self.input.is_empty())
    }
}

impl<R: Read> Read for Bzip2Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            let has_input = self.fill()?;
            if self.is_ended {
                if !has_input {
                    return Ok(0);
                }
                (self.decoder, self.is_ended) = (Decompress::new(false), false);
            }
            let (total_in, total_out) = (self.decoder.total_in(), self.decoder.total_out());
            let input = self.input.get(self.position..).unwrap_or_default();
            let status = self.decoder.decompress(input, buffer);
            let consumed = usize::try_from(self.decoder.total_in() - total_in).unwrap_or(0);
            let written = usize::try_from(self.decoder.total_out() - total_out).unwrap_or(0);
            self.position = self.position.saturating_add(consumed).min(self.input.len());
            match status {
                Ok(Status::StreamEnd) => self.is_ended = true,
                Ok(_) if !has_input && written == 0 => {
                    self.error = Some(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(_) => {}
                Err(_) => {
                    let reason = "the bzip2 data is damaged";
                    self.error = Some(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
            }
            if written > 0 {
                return Ok(written);
            }
        }
        Ok(0)
    }
}

//! Lines of bounded length.

use std::io::{self, BufRead, Read as _};

use crate::{error::LineProblem, limits::MAX_LINE};

/// Reads lines. Line ends are LF or CR LF.
pub(crate) struct LineReader<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> LineReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), number: 0 }
    }

    /// Number of the last line that was read; 1 for the first line.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line. Returns `None` at the end of the file. A line that is too long is an error of that line.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Result<&[u8], LineProblem>>> {
        self.line.clear();
        // Two bytes more, for the line end.
        let limit = MAX_LINE as u64 + 2;
        if self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Some(if line.len() > MAX_LINE { Err(LineProblem::TooLong) } else { Ok(line) }))
    }
}

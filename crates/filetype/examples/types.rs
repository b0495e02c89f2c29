//! Prints the type of each file whose path is on standard input, one path per line.

use std::{
    error::Error,
    fs::File,
    io::{BufRead, Write, stdin, stdout},
    os::unix::fs::FileExt,
};

fn main() -> Result<(), Box<dyn Error>> {
    let detector = mcs_filetype::Detector::new()?;
    let mut output = stdout().lock();
    for path in stdin().lock().lines() {
        let file = File::open(path?)?;
        let read_at = |buffer: &mut [u8], offset| file.read_at(buffer, offset);
        writeln!(output, "{}", detector.detect(file.metadata()?.len(), read_at)?)?;
    }
    Ok(())
}

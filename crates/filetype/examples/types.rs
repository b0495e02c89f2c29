//! Prints the type of each file whose path is on standard input, one path per line.

use std::{
    error::Error,
    fs::File,
    io::{BufRead, Write, stdin, stdout},
};

fn main() -> Result<(), Box<dyn Error>> {
    let detector = mcs_filetype::Detector::new()?;
    let mut output = stdout().lock();
    for path in stdin().lock().lines() {
        writeln!(output, "{}", detector.detect(&File::open(path?)?)?)?;
    }
    Ok(())
}

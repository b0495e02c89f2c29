//! Filters for text, and run lengths: ISO 32000-2, 7.4.2, 7.4.3 and 7.4.5. Other characters are ignored, as in viewers.

use super::{
    filter::{Stage, Step},
    lexer::hex_digit,
};

/// `ASCIIHexDecode`.
#[derive(Default)]
pub(super) struct AsciiHex {
    high: Option<u8>,
}

impl Stage for AsciiHex {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, Step) {
        for (index, byte) in input.iter().enumerate() {
            if *byte == b'>' {
                output.extend(self.high.take().map(|high| high << 4));
                return (index + 1, Step::End);
            }
            if let Some(digit) = hex_digit(*byte) {
                match self.high.take() {
                    Some(high) => output.push(high << 4 | digit),
                    None => self.high = Some(digit),
                }
            }
        }
        if input.is_empty() {
            output.extend(self.high.take().map(|high| high << 4));
            return (0, Step::End);
        }
        (input.len(), Step::More)
    }
}

/// `ASCII85Decode`.
#[derive(Default)]
pub(super) struct Ascii85 {
    group: u32,
    digits: usize,
    /// Whether a group is complete.
    is_started: bool,
}

impl Ascii85 {
    /// Appends the bytes of an incomplete group.
    fn finish(&mut self, output: &mut Vec<u8>) {
        let digits = std::mem::take(&mut self.digits);
        if digits < 2 {
            return;
        }
        for _ in digits..5 {
            self.group = self.group.wrapping_mul(85).wrapping_add(84);
        }
        output.extend(self.group.to_be_bytes().iter().take(digits - 1));
    }
}

impl Stage for Ascii85 {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, Step) {
        for (index, byte) in input.iter().enumerate() {
            match byte {
                // Some writers begin with `<~`.
                b'~' if !self.is_started && self.digits == 1 && self.group == 27 => self.digits = 0,
                b'~' => {
                    self.finish(output);
                    return (index + 1, Step::End);
                }
                b'z' if self.digits == 0 => {
                    output.extend([0; 4]);
                    self.is_started = true;
                }
                b'!'..=b'u' => {
                    let group = if self.digits == 0 { 0 } else { self.group };
                    self.group = group.wrapping_mul(85).wrapping_add(u32::from(byte - b'!'));
                    self.digits += 1;
                    if self.digits == 5 {
                        output.extend(self.group.to_be_bytes());
                        self.digits = 0;
                        self.is_started = true;
                    }
                }
                _ => {}
            }
        }
        if input.is_empty() {
            self.finish(output);
            return (0, Step::End);
        }
        (input.len(), Step::More)
    }
}

/// `RunLengthDecode`.
#[derive(Default)]
pub(super) struct RunLength {
    run: Run,
}

#[derive(Clone, Copy, Default)]
enum Run {
    /// The next byte is a length.
    #[default]
    Length,
    /// So many bytes are copied.
    Copy(u8),
    /// The next byte is repeated.
    Repeat(u16),
}

impl Stage for RunLength {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, Step) {
        for (index, byte) in input.iter().enumerate() {
            self.run = match self.run {
                Run::Length if *byte == 128 => return (index + 1, Step::End),
                Run::Length if *byte < 128 => Run::Copy(byte + 1),
                Run::Length => Run::Repeat(257 - u16::from(*byte)),
                Run::Copy(count) => {
                    output.push(*byte);
                    if count > 1 { Run::Copy(count - 1) } else { Run::Length }
                }
                Run::Repeat(count) => {
                    output.extend(std::iter::repeat_n(*byte, count.into()));
                    Run::Length
                }
            };
        }
        (input.len(), if input.is_empty() { Step::End } else { Step::More })
    }
}

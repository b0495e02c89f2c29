//! Filters for text, and run lengths: ISO 32000-2, 7.4.2, 7.4.3 and 7.4.5. Other characters are ignored, as in viewers.

use super::{
    lexer::hex_digit,
    stage::{FilterStage, StageStep},
};

/// `ASCIIHexDecode`.
#[derive(Default)]
pub(super) struct AsciiHexStage {
    high: Option<u8>,
}

impl FilterStage for AsciiHexStage {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, StageStep) {
        for (index, byte) in input.iter().enumerate() {
            if *byte == b'>' {
                output.extend(self.high.take().map(|high| high << 4));
                return (index + 1, StageStep::End);
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
            return (0, StageStep::End);
        }
        (input.len(), StageStep::More)
    }
}

/// `ASCII85Decode`.
#[derive(Default)]
pub(super) struct Ascii85Stage {
    group: u32,
    digits: usize,
    /// Whether a group is complete.
    is_started: bool,
}

impl Ascii85Stage {
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

impl FilterStage for Ascii85Stage {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, StageStep) {
        for (index, byte) in input.iter().enumerate() {
            match byte {
                // Some writers begin with `<~`.
                b'~' if !self.is_started && self.digits == 1 && self.group == 27 => self.digits = 0,
                b'~' => {
                    self.finish(output);
                    return (index + 1, StageStep::End);
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
            return (0, StageStep::End);
        }
        (input.len(), StageStep::More)
    }
}

/// `RunLengthDecode`.
#[derive(Default)]
pub(super) struct RunLengthStage {
    run: LengthRun,
}

#[derive(Clone, Copy, Default)]
enum LengthRun {
    /// The next byte is a length.
    #[default]
    Length,
    /// So many bytes are copied.
    Copy(u8),
    /// The next byte is repeated.
    Repeat(u16),
}

impl FilterStage for RunLengthStage {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, StageStep) {
        for (index, byte) in input.iter().enumerate() {
            self.run = match self.run {
                LengthRun::Length if *byte == 128 => return (index + 1, StageStep::End),
                LengthRun::Length if *byte < 128 => LengthRun::Copy(byte + 1),
                LengthRun::Length => LengthRun::Repeat(257 - u16::from(*byte)),
                LengthRun::Copy(count) => {
                    output.push(*byte);
                    if count > 1 { LengthRun::Copy(count - 1) } else { LengthRun::Length }
                }
                LengthRun::Repeat(count) => {
                    output.extend(std::iter::repeat_n(*byte, count.into()));
                    LengthRun::Length
                }
            };
        }
        (input.len(), if input.is_empty() { StageStep::End } else { StageStep::More })
    }
}

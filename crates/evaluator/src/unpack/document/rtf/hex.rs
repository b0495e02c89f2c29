//! Bytes as hexadecimal digits in the text of a group.

/// Decodes digits. Word ignores other characters.
#[derive(Clone, Default)]
pub(super) struct HexDecoder {
    bytes: Vec<u8>,
    /// Upper half of a byte.
    upper: Option<u8>,
}

impl HexDecoder {
    pub(super) fn digit(&mut self, digit: u8) {
        match self.upper.take() {
            Some(upper) => self.bytes.push(upper << 4 | digit),
            None => self.upper = Some(digit),
        }
    }

    /// Forgets an incomplete byte.
    pub(super) fn drop_half(&mut self) {
        self.upper = None;
    }

    /// Appends bytes that are not in digits.
    pub(super) fn binary(&mut self, bytes: &[u8]) {
        self.upper = None;
        self.bytes.extend(bytes);
    }

    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.shrink_to_fit();
        self.bytes
    }
}

/// Returns the value of a digit.
pub(super) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

//! Writes the compressed data of LHA and ARJ, without compressing.

/// Writes bits, most significant one first.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    used: usize,
}

impl BitWriter {
    pub(super) fn push(&mut self, number: u32, length: u32) {
        for index in (0..length).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = u8::from(number >> index & 1 == 1) << (7 - self.used % 8);
            *self.bytes.last_mut().unwrap() |= bit;
            self.used += 1;
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Returns a block of static Huffman codes, `-lh4-` to `-lh7-`, in which all bytes have codes of eight bits.
/// `offset_bits` is the length of the number of codes for distances.
pub(super) fn static_huffman(content: &[u8], offset_bits: u32) -> Vec<u8> {
    let mut bits = BitWriter::default();
    bits.push(u32::try_from(content.len()).unwrap(), 16);
    // One code for lengths of codes: 8, plus 2.
    bits.push(0, 5);
    bits.push(10, 5);
    bits.push(256, 9);
    // One code for distances.
    bits.push(0, offset_bits);
    bits.push(0, offset_bits);
    for byte in content {
        bits.push(u32::from(*byte), 8);
    }
    // The decoder reads ahead.
    bits.push(0, 32);
    bits.into_bytes()
}

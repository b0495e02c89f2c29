//! Attachments of the Matrix specification, section "Sending encrypted attachments": AES-256-CTR
//! with a 16-byte initial counter block, SHA-256 over the ciphertext. Streams; knows no files.

use aes::Aes256;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of an AES block.
const BLOCK_SIZE: u128 = 16;

/// What opens an encrypted media.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Decryption {
    key: [u8; 32],
    iv: [u8; 16],
    /// SHA-256 of the ciphertext.
    #[zeroize(skip)]
    sha256: [u8; 32],
}

impl Decryption {
    /// From the parts of an `EncryptedFile`.
    #[must_use]
    pub fn new(key: [u8; 32], iv: [u8; 16], sha256: [u8; 32]) -> Self {
        Self { key, iv, sha256 }
    }

    /// What the ciphertext must hash to.
    #[must_use]
    pub fn ciphertext_hash(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The parts, in a fixed order, for a cache key: who has another key gets another answer.
    pub(crate) fn feed(&self, mut take: impl FnMut(&[u8])) {
        take(&self.key);
        take(&self.iv);
        take(&self.sha256);
    }

    /// Returns the largest size, in bytes, that every client decrypts to the same plaintext.
    ///
    /// Clients that use the Web Cryptography API increment the low 64 bits of the counter block only;
    /// other clients increment all 128 bits. The keystreams are equal up to the block whose low 64 bits
    /// are all ones, and differ from the next block on. The specification keeps the low 64 bits of an
    /// IV zero, which leaves 2^64 blocks. The result is at least one block, and saturates at `u64::MAX`.
    #[must_use]
    pub fn max_size(&self) -> u64 {
        let [_, _, _, _, _, _, _, _, low @ ..] = self.iv;
        let blocks = (1_u128 << 64) - u128::from(u64::from_be_bytes(low));
        u64::try_from(blocks * BLOCK_SIZE).unwrap_or(u64::MAX)
    }

    /// A cipher at the stream's start.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        // Up to `max_size`, a 128-bit counter and a 64-bit counter are the same.
        Cipher(Ctr::new(&self.key.into(), &self.iv.into()))
    }
}

impl std::fmt::Debug for Decryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decryption(..)")
    }
}

type Ctr = ctr::Ctr128BE<Aes256>;

/// The cipher's place in a stream.
pub struct Cipher(Ctr);

impl Cipher {
    /// Decrypts (or encrypts: it is the same) the next bytes in place.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn iv(high: u64, low: u64) -> [u8; 16] {
        ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
    }

    fn max_size(low: u64) -> u64 {
        Decryption::new([1; 32], iv(0x0123_4567_89ab_cdef, low), [0; 32]).max_size()
    }

    /// The keystream of the service.
    fn keystream(key: [u8; 32], iv: [u8; 16], length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Decryption::new(key, iv, [0; 32]).cipher().apply(&mut bytes);
        bytes
    }

    /// The keystream of a client with a 64-bit counter.
    fn keystream_64(key: [u8; 32], iv: [u8; 16], length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        ctr::Ctr64BE::<Aes256>::new(&key.into(), &iv.into()).apply_keystream(&mut bytes);
        bytes
    }

    #[test]
    fn the_size_limit_ends_with_the_last_block_before_the_wrap() {
        assert_eq!(max_size(u64::MAX), 16);
        assert_eq!(max_size(u64::MAX - 1), 32);
        assert_eq!(max_size(u64::MAX - 999), 16_000);
        // 2^60 blocks are 2^64 bytes, one more than a u64 holds.
        assert_eq!(max_size(u64::MAX - (1 << 60) + 2), u64::MAX - 15);
        assert_eq!(max_size(u64::MAX - (1 << 60) + 1), u64::MAX);
        assert_eq!(max_size(1 << 63), u64::MAX);
        assert_eq!(max_size(0), u64::MAX);
    }

    proptest! {
        #[test]
        fn within_the_limit_both_counter_widths_agree_and_beyond_it_they_do_not(
            key in any::<[u8; 32]>(),
            high in any::<u64>(),
            blocks_left in 1_u64..64,
            size in 0_usize..1100,
        ) {
            let iv = iv(high, u64::MAX - blocks_left + 1);
            let limit = Decryption::new(key, iv, [0; 32]).max_size();
            prop_assert_eq!(limit, blocks_left * 16);
            let limit = usize::try_from(limit).unwrap();
            let accepted = size.min(limit);
            prop_assert_eq!(keystream(key, iv, accepted), keystream_64(key, iv, accepted));
            // Of one byte beyond the limit, every 256th is equal by chance: compare a whole block.
            let (ours, theirs) = (keystream(key, iv, limit + 16), keystream_64(key, iv, limit + 16));
            prop_assert_eq!(&ours[..limit], &theirs[..limit]);
            prop_assert_ne!(&ours[limit..], &theirs[limit..]);
        }

        #[test]
        fn a_random_low_half_decrypts_alike_for_every_accepted_size(
            key in any::<[u8; 32]>(),
            iv in any::<[u8; 16]>(),
            size in 0_usize..1100,
        ) {
            let limit = Decryption::new(key, iv, [0; 32]).max_size();
            prop_assume!(size as u64 <= limit);
            prop_assert_eq!(keystream(key, iv, size), keystream_64(key, iv, size));
        }
    }
}

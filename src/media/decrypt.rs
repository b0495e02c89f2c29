//! Decryption of attachments: AES-256-CTR with a 16-byte initial counter block, SHA-256 of the ciphertext. Matrix
//! specification, client-server API, section "Sending encrypted attachments".

use aes::Aes256;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Size of an AES block, in bytes.
const BLOCK_SIZE: u128 = 16;

/// Key material and expected hash of an encrypted file.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Decryption {
    key: [u8; 32],
    iv: [u8; 16],
    /// SHA-256 of the ciphertext.
    #[zeroize(skip)]
    sha256: [u8; 32],
}

impl Decryption {
    /// Creates a decryption from the fields of an `EncryptedFile`.
    #[must_use]
    pub fn new(key: [u8; 32], iv: [u8; 16], sha256: [u8; 32]) -> Self {
        Self { key, iv, sha256 }
    }

    /// Returns the expected SHA-256 of the ciphertext.
    #[must_use]
    pub fn ciphertext_hash(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Passes all fields to `write`, for a cache key: requests with different key material never share an entry.
    pub(crate) fn feed(&self, mut write: impl FnMut(&[u8])) {
        write(&self.key);
        write(&self.iv);
        write(&self.sha256);
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

    /// Creates a cipher at the start of the stream.
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

/// Decrypts a stream in consecutive pieces.
pub struct Cipher(Ctr);

impl Cipher {
    /// Decrypts the next bytes in place. Encryption is the same operation.
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

    /// Returns the keystream that [`Decryption`] computes.
    fn keystream(key: [u8; 32], iv: [u8; 16], length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Decryption::new(key, iv, [0; 32]).cipher().apply(&mut bytes);
        bytes
    }

    /// Returns the keystream that a client with a 64-bit counter computes.
    fn keystream_64(key: [u8; 32], iv: [u8; 16], length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        ctr::Ctr64BE::<Aes256>::new(&key.into(), &iv.into()).apply_keystream(&mut bytes);
        bytes
    }

    #[test]
    fn max_size_ends_with_last_block_before_wrap() {
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
        fn counter_widths_agree_up_to_max_size_only(
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
            // Compares a whole block beyond the limit: single bytes would be equal by chance in 1 of 256 cases.
            let (service, client) = (keystream(key, iv, limit + 16), keystream_64(key, iv, limit + 16));
            prop_assert_eq!(&service[..limit], &client[..limit]);
            prop_assert_ne!(&service[limit..], &client[limit..]);
        }

        #[test]
        fn counter_widths_agree_for_random_iv(
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

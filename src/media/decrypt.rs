//! Attachments of the Matrix specification, section "Sending encrypted attachments": AES-256-CTR
//! with a 16-byte initial counter block, SHA-256 over the ciphertext. Streams; knows no files.

use aes::Aes256;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::{Zeroize, ZeroizeOnDrop};

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

    /// A cipher at the stream's start.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        // Clients count in 64 or in 128 bits; the specification keeps the IV's lower 64 bits zero, so
        // the two never differ.
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

//! Names and seals of records.

use std::fmt;

use chacha20poly1305::{
    Key, KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    limits::MAX_VALUE,
    record::{NAME, RecordKey, RecordKind, RecordName},
};

/// Version of the format of a record. The first byte of its plaintext.
const FORMAT: u8 = 1;

/// Length of the format and the time of expiry in bytes.
pub(crate) const HEADER: usize = 1 + size_of::<u64>();

const NONCE: usize = 24;

const TAG: usize = 16;

/// Number of bytes that sealing adds to a value.
pub(crate) const OVERHEAD: usize = NONCE + HEADER + TAG;

/// Keys for the names and the seals of records, derived from one secret. `Debug` prints neither.
#[derive(Clone)]
pub struct StoreSecret {
    names: Zeroizing<[u8; 32]>,
    seals: Zeroizing<[u8; 32]>,
}

/// Reason why a record is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRecord {
    /// The record is shorter or longer than sealed values are.
    #[error("the record has an invalid length")]
    Length,
    /// The record was altered, belongs to another key, or was sealed with another secret.
    #[error("the seal of the record is invalid")]
    Seal,
    /// The record was sealed by a version of this program with another format.
    #[error("the record has format {0}, expected {FORMAT}")]
    Format(u8),
    /// The record was valid until this time.
    #[error("the record has expired at {0}")]
    Expired(u64),
}

/// Reason why a value cannot be sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    /// The value is longer than [`MAX_VALUE`].
    #[error("the value of a record has {0} bytes, more than {MAX_VALUE}")]
    TooLong(usize),
    /// The system returns no random bytes.
    #[error("no random bytes for the seal of a record: {0}")]
    Random(getrandom::Error),
}

impl StoreSecret {
    /// Derives the keys from a secret, with HKDF-SHA256 (RFC 5869). The secret has at least 128 bits of entropy; an
    /// attacker with the file can guess a weaker one.
    #[must_use]
    pub fn derive(secret: &[u8]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(b"matrix-content-scanner store"), secret);
        let derive_key = |label: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            // Fails only for keys longer than 8160 bytes.
            let expanded = hkdf.expand(label, &mut *key);
            debug_assert!(expanded.is_ok());
            key
        };
        Self { names: derive_key(b"names 1"), seals: derive_key(b"seals 1") }
    }

    /// Returns whether both were derived from the same secret.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        *self.names == *other.names && *self.seals == *other.seals
    }

    /// Returns the name of a record. Different parts have different names; so have the same bytes divided into parts
    /// differently. Records about a content have the same name: [`RecordKind::NotClean`], [`RecordKind::Finished`] and
    /// [`RecordKind::Forgotten`]. Names of the other kinds differ.
    #[must_use]
    pub fn name(&self, kind: RecordKind, parts: &[&[u8]]) -> RecordName {
        let mut name = RecordName([0; NAME]);
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&*self.names) else {
            // HMAC accepts keys of any length.
            return name;
        };
        mac.update(&[kind.name_space() as u8]);
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        for (target, byte) in name.0.iter_mut().zip(mac.finalize().into_bytes()) {
            *target = byte;
        }
        name
    }

    /// Seals a value under a key. `expiry`: time from which the record is invalid.
    ///
    /// # Errors
    /// If the value is longer than [`MAX_VALUE`], or the system returns no random bytes.
    pub fn seal(&self, key: &RecordKey, expiry: u64, value: &[u8]) -> Result<Vec<u8>, SealError> {
        if value.len() > MAX_VALUE {
            return Err(SealError::TooLong(value.len()));
        }
        self.seal_plaintext(key, &[&[FORMAT][..], &expiry.to_le_bytes(), value].concat())
    }

    /// Seals a plaintext with its header, of any length and content.
    pub(crate) fn seal_plaintext(
        &self,
        key: &RecordKey,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        self.seal_bytes(&key.associated_data(), plaintext)
    }

    /// Seals a plaintext, bound to this data: that of a record's key, or data that differs from those of all keys.
    pub(crate) fn seal_bytes(&self, data: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(SealError::Random)?;
        let payload = Payload { msg: plaintext, aad: data };
        let ciphertext = self.cipher().encrypt(&XNonce::from(nonce), payload);
        // Fails only for plaintexts of more than 256 GiB.
        let ciphertext = ciphertext.map_err(|_| SealError::TooLong(plaintext.len()))?;
        Ok([&nonce[..], &ciphertext].concat())
    }

    /// Opens a sealed value. Accepts any bytes.
    ///
    /// # Errors
    /// If the record was not sealed under this key with this secret, or has expired at `now`.
    pub fn open(&self, key: &RecordKey, sealed: &[u8], now: u64) -> Result<Vec<u8>, BadRecord> {
        Ok(self.open_with_expiry(key, sealed, now)?.1)
    }

    /// Opens a sealed value as [`open`](Self::open). Returns also the time from which the record is invalid.
    pub(crate) fn open_with_expiry(
        &self,
        key: &RecordKey,
        sealed: &[u8],
        now: u64,
    ) -> Result<(u64, Vec<u8>), BadRecord> {
        if !(OVERHEAD..=OVERHEAD + MAX_VALUE).contains(&sealed.len()) {
            return Err(BadRecord::Length);
        }
        let plaintext = self.open_bytes(&key.associated_data(), sealed)?;
        let (format, rest) = plaintext.split_first().ok_or(BadRecord::Length)?;
        if *format != FORMAT {
            return Err(BadRecord::Format(*format));
        }
        let (expiry, value) = rest.split_first_chunk().ok_or(BadRecord::Length)?;
        let expiry = u64::from_le_bytes(*expiry);
        if expiry <= now {
            return Err(BadRecord::Expired(expiry));
        }
        Ok((expiry, value.to_vec()))
    }

    /// Opens what [`seal_bytes`](Self::seal_bytes) has sealed. Accepts any bytes.
    pub(crate) fn open_bytes(&self, data: &[u8], sealed: &[u8]) -> Result<Vec<u8>, BadRecord> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE>().ok_or(BadRecord::Length)?;
        let payload = Payload { msg: ciphertext, aad: data };
        let plaintext = self.cipher().decrypt(&XNonce::from(*nonce), payload);
        plaintext.map_err(|_| BadRecord::Seal)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&Key::from(*self.seals))
    }
}

impl fmt::Debug for StoreSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreSecret(..)")
    }
}

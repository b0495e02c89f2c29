//! Encrypted attachments (Matrix specification, "Sending encrypted attachments") and request bodies,
//! plain or sealed with Olm's `PkEncryption`.

use aes::Aes256;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use ctr::cipher::{KeyIvInit, StreamCipher};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vodozemac::{Curve25519PublicKey, pk_encryption::PkEncryption};

/// Encrypted media with its plaintext and key.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub ciphertext: Vec<u8>,
    pub plaintext: Vec<u8>,
    key: [u8; 32],
    iv: [u8; 16],
}

impl Attachment {
    /// Encrypts with a key derived from `seed`.
    pub fn encrypt(plaintext: &[u8], seed: u8) -> Self {
        let (key, mut iv) = ([seed; 32], [0; 16]);
        iv[..8].fill(seed ^ 0xa5);
        let mut ciphertext = plaintext.to_vec();
        ctr::Ctr128BE::<Aes256>::new(&key.into(), &iv.into()).apply_keystream(&mut ciphertext);
        Self { ciphertext, plaintext: plaintext.to_vec(), key, iv }
    }

    /// Encrypts like a client with a 64-bit counter. The counter starts `blocks` blocks before it wraps.
    pub fn encrypt_before_wrap(plaintext: &[u8], seed: u8, blocks: u64) -> Self {
        let mut attachment = Self::encrypt(plaintext, seed);
        attachment.iv[8..].copy_from_slice(&(u64::MAX - blocks + 1).to_be_bytes());
        let (key, iv) = (&attachment.key.into(), &attachment.iv.into());
        attachment.ciphertext = plaintext.to_vec();
        ctr::Ctr64BE::<Aes256>::new(key, iv).apply_keystream(&mut attachment.ciphertext);
        attachment
    }

    /// Creates an attachment with this ciphertext, whose counter starts `blocks` blocks before it wraps.
    pub fn from_ciphertext(ciphertext: &[u8], seed: u8, blocks: u64) -> Self {
        let keystream = Self::encrypt_before_wrap(&vec![0; ciphertext.len()], seed, blocks);
        let pairs = ciphertext.iter().zip(&keystream.ciphertext);
        let plaintext = pairs.map(|(byte, key)| byte ^ key).collect();
        Self { ciphertext: ciphertext.to_vec(), plaintext, ..keystream }
    }

    /// Returns the same ciphertext with a wrong key. The hash still matches because it covers the ciphertext.
    pub fn with_another_key(&self) -> Self {
        let mut other = self.clone();
        other.key[0] ^= 1;
        other
    }

    /// Returns the `EncryptedFile` object for this attachment at `mxc`.
    pub fn file(&self, mxc: &str) -> Value {
        json!({
            "v": "v2",
            "url": mxc,
            "mimetype": "image/png",
            "key": {
                "kty": "oct", "alg": "A256CTR", "ext": true, "key_ops": ["encrypt", "decrypt"],
                "k": URL_SAFE_NO_PAD.encode(self.key),
            },
            "iv": STANDARD_NO_PAD.encode(self.iv),
            "hashes": { "sha256": STANDARD_NO_PAD.encode(Sha256::digest(&self.ciphertext)) },
        })
    }

    /// Returns a plain (unsealed) request body.
    pub fn body(&self, mxc: &str) -> Value {
        json!({ "file": self.file(mxc) })
    }
}

/// Seals a request body with the server's public key.
pub fn seal(public_key: &str, content: &[u8]) -> Value {
    let key = Curve25519PublicKey::from_base64(public_key).expect("a Curve25519 key in base64");
    let sealed = PkEncryption::from_key(key).encrypt(content).expect("sealing works");
    json!({ "encrypted_body": {
        "ciphertext": STANDARD_NO_PAD.encode(sealed.ciphertext),
        "mac": STANDARD_NO_PAD.encode(sealed.mac),
        "ephemeral": sealed.ephemeral_key.to_base64(),
    }})
}

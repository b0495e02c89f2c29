//! Keyed hashes of user IDs. User IDs can be guessed, so a hash without a key could be looked up in a table.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::media::hex;

/// Hashes user IDs with HMAC-SHA256. `Debug` prints no key.
#[derive(Clone)]
pub struct UserHasher(Zeroizing<[u8; 32]>);

impl UserHasher {
    /// Derives the key from the private request key, with HKDF-SHA256 (RFC 5869) and a label of its own.
    #[must_use]
    pub fn derive(secret: &[u8]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(b"matrix-content-scanner audit"), secret);
        let mut key = Zeroizing::new([0; 32]);
        // Fails only for keys longer than 8160 bytes.
        let expanded = hkdf.expand(b"users 1", &mut *key);
        debug_assert!(expanded.is_ok());
        Self(key)
    }

    /// Returns the hash of a user ID in hexadecimal digits.
    #[must_use]
    pub fn hash(&self, user_id: &str) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&*self.0) else {
            // HMAC accepts keys of any length.
            return String::new();
        };
        mac.update(user_id.as_bytes());
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        hex(&digest)
    }
}

impl std::fmt::Debug for UserHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserHasher(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_depends_on_the_key_and_the_user() {
        let (one, other) = (UserHasher::derive(&[1; 32]), UserHasher::derive(&[2; 32]));
        let hash = one.hash("@alice:example.org");
        // Computed with OpenSSL: `openssl kdf … HKDF` and `openssl dgst -mac HMAC`.
        assert_eq!(hash, "79d6bc5af65e1baa67d6c42b6295962509a010b1db4f80a2526ed053fa6d3176");
        assert_ne!(hash, other.hash("@alice:example.org"));
        assert_ne!(hash, one.hash("@bob:example.org"));
        assert_eq!(format!("{one:?}"), "UserHasher(..)");
    }
}

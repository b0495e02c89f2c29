//! Current and replaced request keys. Clients cache the public key while they run, so bodies encrypted for a replaced
//! key are still decrypted for a configured time. The ring is immutable; a rotation creates a new one.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::request_key::{OpenError, RequestKey};

/// Maximum number of replaced keys; the oldest are dropped. Each is tried on a body that the current key does not
/// decrypt.
const MAX_PREVIOUS: usize = 4;

/// Keys of the server.
#[derive(Clone, Debug)]
pub struct Keyring {
    current: Arc<RequestKey>,
    /// Replaced keys, most recent first.
    previous: Vec<PreviousKey>,
    /// Time for which a replaced key remains valid.
    ttl: Duration,
}

#[derive(Clone, Debug)]
struct PreviousKey {
    key: Arc<RequestKey>,
    replaced_at: Instant,
}

impl Keyring {
    /// Creates a ring with one key. A replaced key remains valid for `ttl`.
    #[must_use]
    pub fn new(key: RequestKey, ttl: Duration) -> Self {
        Self { current: Arc::new(key), previous: Vec::new(), ttl }
    }

    /// Returns the fingerprint of the current public key, to compare it with those of other replicas.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 8] {
        self.current.fingerprint()
    }

    /// Returns a ring with `key`, which may be the same, as the current key, and with a new TTL for all replaced keys.
    #[must_use]
    pub fn with_current_key(&self, key: RequestKey, ttl: Duration) -> Self {
        let mut next = Self { current: Arc::new(key), ttl, ..self.clone() };
        if !next.current.is_same(&self.current) {
            let key = Arc::clone(&self.current);
            next.previous.insert(0, PreviousKey { key, replaced_at: Instant::now() });
        }
        // A key that becomes current again is no longer a previous one.
        next.previous.retain(|previous| !previous.key.is_same(&next.current));
        next.previous.truncate(MAX_PREVIOUS);
        next.without_expired()
    }

    /// Returns a ring without expired keys.
    #[must_use]
    pub fn without_expired(&self) -> Self {
        let mut next = self.clone();
        next.previous.retain(|previous| previous.replaced_at.elapsed() < self.ttl);
        next
    }

    /// Returns the time at which the next replaced key expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.previous.iter().filter_map(|previous| previous.replaced_at.checked_add(self.ttl)).min()
    }

    /// Decrypts a body encrypted for the current key or an unexpired previous one.
    ///
    /// # Errors
    /// The error of the current key if no key decrypts the body.
    pub fn open(
        &self,
        ciphertext: &str,
        mac: &str,
        ephemeral: &str,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let result = self.current.open(ciphertext, mac, ephemeral);
        let Err(OpenError::Mac) = result else { return result };
        let mut valid =
            self.previous.iter().filter(|previous| previous.replaced_at.elapsed() < self.ttl);
        let plaintext =
            valid.find_map(|previous| previous.key.open(ciphertext, mac, ephemeral).ok());
        plaintext.map_or(result, Ok)
    }

    /// Derives other keys from the private keys: from the current one, and from unexpired previous ones, the most recent
    /// first.
    pub fn derive<T>(&self, derive: impl Fn(&[u8]) -> T) -> (T, Vec<T>) {
        let valid =
            self.previous.iter().filter(|previous| previous.replaced_at.elapsed() < self.ttl);
        let previous = valid.map(|previous| previous.key.derive(&derive)).collect();
        (self.current.derive(&derive), previous)
    }

    /// Returns the public key of the current key.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.current.public_key()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::request_key::tests::{new_key, seal};

    const HOUR: Duration = Duration::from_secs(3600);

    /// Returns a ring with one key, and a body encrypted for it.
    fn ring() -> (Keyring, [String; 3]) {
        let key = new_key(1);
        let sealed = seal(&key, b"for the first");
        (Keyring::new(key, HOUR), sealed)
    }

    fn open(
        ring: &Keyring,
        [ciphertext, mac, ephemeral]: &[String; 3],
    ) -> Result<Vec<u8>, OpenError> {
        ring.open(ciphertext, mac, ephemeral).map(|plaintext| plaintext.to_vec())
    }

    #[tokio::test(start_paused = true)]
    async fn replaced_key_expires_after_ttl() {
        let (first, sealed) = ring();
        let second = new_key(2);
        let sealed_for_second = seal(&second, b"for the second");
        let ring = first.with_current_key(second, HOUR);
        assert_eq!(ring.public_key(), new_key(2).public_key());
        tokio::time::advance(Duration::from_secs(3599)).await;
        assert_eq!(open(&ring, &sealed).unwrap(), b"for the first");
        assert_eq!(open(&ring, &sealed_for_second).unwrap(), b"for the second");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(open(&ring, &sealed), Err(OpenError::Mac));
        assert_eq!(ring.next_expiry(), Some(Instant::now()));
        let ring = ring.without_expired();
        assert!(ring.previous.is_empty(), "expired key is still in memory");
        assert_eq!(ring.next_expiry(), None);
        assert_eq!(open(&ring, &sealed_for_second).unwrap(), b"for the second");
    }

    #[tokio::test(start_paused = true)]
    async fn shorter_ttl_applies_to_keys_replaced_before() {
        let (first, sealed) = ring();
        let ring = first.with_current_key(new_key(2), HOUR);
        assert!(open(&ring, &sealed).is_ok());
        let ring = ring.with_current_key(new_key(2), Duration::ZERO);
        assert_eq!(open(&ring, &sealed), Err(OpenError::Mac));
        assert!(ring.previous.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn rotation_to_same_or_previous_key_adds_no_duplicate() {
        let (first, sealed) = ring();
        assert!(first.with_current_key(new_key(1), HOUR).previous.is_empty());
        let restored = first.with_current_key(new_key(2), HOUR).with_current_key(new_key(1), HOUR);
        assert_eq!(restored.previous.len(), 1);
        assert_eq!(open(&restored, &sealed).unwrap(), b"for the first");
        assert_eq!(open(&restored, &seal(&new_key(2), b"x")).unwrap(), b"x");
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_limited_number_of_replaced_keys() {
        let mut ring = Keyring::new(new_key(0), HOUR);
        for seed in 1..10 {
            ring = ring.with_current_key(new_key(seed), HOUR);
        }
        assert_eq!(ring.previous.len(), MAX_PREVIOUS);
        assert!(open(&ring, &seal(&new_key(5), b"x")).is_ok());
        assert_eq!(open(&ring, &seal(&new_key(4), b"x")), Err(OpenError::Mac));
    }

    #[tokio::test(start_paused = true)]
    async fn replaced_keys_do_not_change_the_error() {
        let (first, sealed) = ring();
        let ring = first.with_current_key(new_key(2), HOUR);
        for (part, error) in
            [(0, OpenError::Base64("ciphertext")), (2, OpenError::Base64("ephemeral"))]
        {
            let mut broken = sealed.clone();
            "?".clone_into(&mut broken[part]);
            assert_eq!(open(&ring, &broken), Err(error));
        }
        assert_eq!(open(&ring, &seal(&new_key(3), b"x")), Err(OpenError::Mac));
    }
}

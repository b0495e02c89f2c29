//! The key in use, and those that it has replaced: clients keep a public key for as long as they run,
//! so what they sealed for the one before is still opened for a set time. Immutable: a rotation makes
//! another ring.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{OpenError, RequestKey};

/// Replaced keys that are kept, the youngest. Each is tried on a body that the key in use does not open.
const MAX_PREVIOUS: usize = 4;

/// The server's keys.
#[derive(Clone, Debug)]
pub struct Keyring {
    current: Arc<RequestKey>,
    /// The youngest first.
    previous: Vec<Previous>,
    /// How long a replaced key still opens.
    ttl: Duration,
}

#[derive(Clone, Debug)]
struct Previous {
    key: Arc<RequestKey>,
    replaced: Instant,
}

impl Keyring {
    /// With one key. Once replaced, it opens for `ttl` more.
    #[must_use]
    pub fn new(key: RequestKey, ttl: Duration) -> Self {
        Self { current: Arc::new(key), previous: Vec::new(), ttl }
    }

    /// With this key in use, which may be the same, and this time for all that were replaced.
    #[must_use]
    pub fn rotated(&self, key: RequestKey, ttl: Duration) -> Self {
        let mut next = Self { current: Arc::new(key), ttl, ..self.clone() };
        if !next.current.is_same(&self.current) {
            let key = Arc::clone(&self.current);
            next.previous.insert(0, Previous { key, replaced: Instant::now() });
        }
        // One that was put back is in use, and nothing else.
        next.previous.retain(|previous| !previous.key.is_same(&next.current));
        next.previous.truncate(MAX_PREVIOUS);
        next.without_ended()
    }

    /// Without those whose time is over.
    #[must_use]
    pub fn without_ended(&self) -> Self {
        let mut next = self.clone();
        next.previous.retain(|previous| previous.replaced.elapsed() < self.ttl);
        next
    }

    /// When the time of the first of those that were replaced is over.
    #[must_use]
    pub fn next_end(&self) -> Option<Instant> {
        self.previous.iter().filter_map(|it| it.replaced.checked_add(self.ttl)).min()
    }

    /// Opens what a client sealed for the key in use, or for one whose time is not over.
    ///
    /// # Errors
    /// What the key in use says, where none opens it.
    pub fn open(
        &self,
        ciphertext: &str,
        mac: &str,
        ephemeral: &str,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let opened = self.current.open(ciphertext, mac, ephemeral);
        let Err(OpenError::Mac) = opened else { return opened };
        let mut valid = self.previous.iter().filter(|it| it.replaced.elapsed() < self.ttl);
        let by_previous = valid.find_map(|it| it.key.open(ciphertext, mac, ephemeral).ok());
        by_previous.map_or(opened, Ok)
    }

    /// What clients seal for from now on.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.current.public_key()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::{new_key, seal};

    const HOUR: Duration = Duration::from_secs(3600);

    /// A ring with one key, and a body sealed for it.
    fn ring() -> (Keyring, [String; 3]) {
        let key = new_key(1);
        let sealed = seal(&key, b"for the first");
        (Keyring::new(key, HOUR), sealed)
    }

    fn open(
        ring: &Keyring,
        [ciphertext, mac, ephemeral]: &[String; 3],
    ) -> Result<Vec<u8>, OpenError> {
        ring.open(ciphertext, mac, ephemeral).map(|it| it.to_vec())
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_key_opens_for_its_time_and_no_longer() {
        let (first, sealed) = ring();
        let second = new_key(2);
        let sealed_anew = seal(&second, b"for the second");
        let ring = first.rotated(second, HOUR);
        assert_eq!(ring.public_key(), new_key(2).public_key());
        tokio::time::advance(Duration::from_secs(3599)).await;
        assert_eq!(open(&ring, &sealed).unwrap(), b"for the first");
        assert_eq!(open(&ring, &sealed_anew).unwrap(), b"for the second");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(open(&ring, &sealed), Err(OpenError::Mac));
        assert_eq!(ring.next_end(), Some(Instant::now()));
        let ring = ring.without_ended();
        assert!(ring.previous.is_empty(), "it is still in memory");
        assert_eq!(ring.next_end(), None);
        assert_eq!(open(&ring, &sealed_anew).unwrap(), b"for the second");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_time_counts_for_keys_that_were_replaced_before() {
        let (first, sealed) = ring();
        let ring = first.rotated(new_key(2), HOUR);
        assert!(open(&ring, &sealed).is_ok());
        let ring = ring.rotated(new_key(2), Duration::ZERO);
        assert_eq!(open(&ring, &sealed), Err(OpenError::Mac));
        assert!(ring.previous.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_key_again_and_one_that_is_put_back_replace_nothing_twice() {
        let (first, sealed) = ring();
        assert!(first.rotated(new_key(1), HOUR).previous.is_empty());
        let back = first.rotated(new_key(2), HOUR).rotated(new_key(1), HOUR);
        assert_eq!(back.previous.len(), 1);
        assert_eq!(open(&back, &sealed).unwrap(), b"for the first");
        assert_eq!(open(&back, &seal(&new_key(2), b"x")).unwrap(), b"x");
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_replaced_keys_are_kept() {
        let mut ring = Keyring::new(new_key(0), HOUR);
        for seed in 1..10 {
            ring = ring.rotated(new_key(seed), HOUR);
        }
        assert_eq!(ring.previous.len(), MAX_PREVIOUS);
        assert!(open(&ring, &seal(&new_key(5), b"x")).is_ok());
        assert_eq!(open(&ring, &seal(&new_key(4), b"x")), Err(OpenError::Mac));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_sealed_body_is_the_same_error_with_and_without_replaced_keys() {
        let (first, sealed) = ring();
        let ring = first.rotated(new_key(2), HOUR);
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

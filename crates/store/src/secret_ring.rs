//! The secret of a store, and those that it has replaced.

use std::{fmt, iter::once, sync::Arc};

use parking_lot::RwLock;

use crate::{
    record::RecordKey,
    secret::{BadRecord, SealError, StoreSecret},
};

/// The current secret of a store, and former ones whose records are still read. Cheap to clone; clones change together.
#[derive(Clone)]
pub struct SecretRing(Arc<RwLock<RingSecrets>>);

struct RingSecrets {
    current: StoreSecret,
    /// Most recent first.
    former: Vec<StoreSecret>,
}

impl SecretRing {
    /// Returns the current secret, which protects new records.
    #[must_use]
    pub fn current(&self) -> StoreSecret {
        self.0.read().current.clone()
    }

    /// Returns the former secrets, the most recent first.
    #[must_use]
    pub fn former(&self) -> Vec<StoreSecret> {
        self.0.read().former.clone()
    }

    /// Replaces all secrets. `former`: most recent first.
    pub fn replace(&self, current: StoreSecret, former: Vec<StoreSecret>) {
        *self.0.write() = RingSecrets { current, former };
    }

    /// Seals a value with the current secret, as [`StoreSecret::seal`].
    pub(crate) fn seal(
        &self,
        key: &RecordKey,
        expiry: u64,
        value: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        self.current().seal(key, expiry, value)
    }

    /// Opens a value that any of the secrets has sealed, as [`StoreSecret::open`]. A name belongs to one secret, so a record
    /// of one secret is not valid in place of a record of another.
    pub(crate) fn open(
        &self,
        key: &RecordKey,
        sealed: &[u8],
        now: u64,
    ) -> Result<Vec<u8>, BadRecord> {
        self.open_by_any(|secret| secret.open(key, sealed, now))
    }

    /// Returns the first result other than that of an invalid seal.
    pub(crate) fn open_by_any<T>(
        &self,
        open: impl Fn(&StoreSecret) -> Result<T, BadRecord>,
    ) -> Result<T, BadRecord> {
        let secrets = self.0.read();
        let mut results = once(&secrets.current).chain(&secrets.former).map(open);
        results
            .find(|result| !matches!(result, Err(BadRecord::Seal)))
            .unwrap_or(Err(BadRecord::Seal))
    }
}

/// A ring without former secrets.
impl From<StoreSecret> for SecretRing {
    fn from(current: StoreSecret) -> Self {
        Self(Arc::new(RwLock::new(RingSecrets { current, former: Vec::new() })))
    }
}

impl fmt::Debug for SecretRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretRing(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordKind;

    #[test]
    fn records_of_former_secrets_are_read_until_they_are_removed() {
        let [first, second] = [&b"first"[..], b"second"].map(StoreSecret::derive);
        let key = |secret: &StoreSecret| {
            let kind = RecordKind::Finished;
            RecordKey { kind, name: secret.name(kind, &[b"content"]), version: None }
        };
        let (first_key, second_key) = (key(&first), key(&second));
        let ring = SecretRing::from(first.clone());
        let clone = ring.clone();
        let sealed = ring.seal(&first_key, 100, b"value").unwrap();
        ring.replace(second.clone(), vec![first]);
        assert_eq!(clone.open(&first_key, &sealed, 1), Ok(b"value".to_vec()));
        assert_eq!(clone.open(&first_key, &sealed, 100), Err(BadRecord::Expired(100)));
        assert_eq!(clone.open(&second_key, &sealed, 1), Err(BadRecord::Seal), "another name");
        let resealed = clone.seal(&second_key, 100, b"value").unwrap();
        assert_eq!(second.open(&second_key, &resealed, 1), Ok(b"value".to_vec()));
        ring.replace(second, Vec::new());
        assert_eq!(clone.open(&first_key, &sealed, 1), Err(BadRecord::Seal));
        assert_eq!(clone.open(&second_key, &resealed, 1), Ok(b"value".to_vec()));
    }
}

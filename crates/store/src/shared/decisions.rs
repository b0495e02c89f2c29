//! The list of operators' decisions: each list has a number and a key of its own, which is written once.

use super::{error::StoreUnavailable, store::SharedStore};
use crate::secret::SealError;

impl SharedStore {
    /// Returns the newest list with a number above `known`, and its number. A list that was altered, or that belongs to
    /// another number, is not returned.
    ///
    /// # Errors
    /// If the store is not available.
    pub async fn latest_decisions(
        &self,
        known: u64,
    ) -> Result<Option<(u64, Vec<u8>)>, StoreUnavailable> {
        let _ = known;
        std::future::ready(Err(StoreUnavailable)).await
    }

    /// Writes the list with a number. Returns `false` if another replica has written a list with this number.
    ///
    /// # Errors
    /// If the list cannot be sealed, or the store is not available.
    pub async fn add_decisions(
        &self,
        number: u64,
        list: &[u8],
    ) -> Result<Result<bool, SealError>, StoreUnavailable> {
        let _ = (number, list);
        std::future::ready(Err(StoreUnavailable)).await
    }
}

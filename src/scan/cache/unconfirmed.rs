//! Verdicts that could not be compared with those of other replicas.

use super::keys::ContentKey;

/// Maximum number of verdicts that wait for a comparison with the store. With more, they are not counted singly.
const MAX_UNCONFIRMED: usize = 10_000;

/// Verdicts that could not be compared with those of other replicas, because the store was not available.
#[derive(Default, Debug)]
pub(super) struct UnconfirmedVerdicts {
    keys: Vec<ContentKey>,
    has_more: bool,
}

impl UnconfirmedVerdicts {
    pub(super) fn add(&mut self, key: ContentKey) {
        if self.keys.len() < MAX_UNCONFIRMED {
            self.keys.push(key);
        } else {
            self.has_more = true;
        }
    }

    /// Returns the keys; `None` if there were too many to remember.
    pub(super) fn keys(self) -> Option<Vec<ContentKey>> {
        (!self.has_more).then_some(self.keys)
    }
}

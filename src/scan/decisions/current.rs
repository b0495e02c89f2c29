//! The decisions in force.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;

use super::list::{DecisionAction, DecisionList};
use crate::scan::engines::ListedFile;

/// The decisions in force. Cheap to clone; clones share them.
#[derive(Clone, Default)]
pub struct Decisions(Arc<ArcSwap<IndexedList>>);

/// A list, and its decisions by content.
#[derive(Default)]
struct IndexedList {
    list: DecisionList,
    by_content: HashMap<[u8; 32], usize>,
}

impl Decisions {
    /// Returns the decision about the content with this SHA-256.
    #[must_use]
    pub fn find(&self, content: &[u8; 32]) -> Option<ListedFile> {
        let indexed = self.0.load();
        let index = indexed.by_content.get(content)?;
        let decision = indexed.list.decisions.get(*index)?;
        if decision.end <= now() {
            return None;
        }
        Some(match decision.action {
            DecisionAction::Allow => ListedFile::Allowed,
            DecisionAction::Block => ListedFile::Blocked(BLOCKED.into()),
        })
    }

    /// Returns the list.
    #[must_use]
    pub fn list(&self) -> DecisionList {
        self.0.load().list.clone()
    }

    /// Returns the number of the list.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.load().list.number
    }

    /// Replaces the list if the number of the new one is higher. Returns whether it is.
    pub(super) fn replace(&self, list: &DecisionList) -> bool {
        let mut is_newer = false;
        self.0.rcu(|current| {
            is_newer = list.number > current.list.number;
            if is_newer { Arc::new(IndexedList::new(list.clone())) } else { Arc::clone(current) }
        });
        is_newer
    }
}

impl fmt::Debug for Decisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decisions").field("number", &self.number()).finish_non_exhaustive()
    }
}

/// Text for users who request a blocked file.
const BLOCKED: &str = "Blocked by the operator";

impl IndexedList {
    fn new(list: DecisionList) -> Self {
        let decisions = list.decisions.iter().enumerate();
        let by_content = decisions.map(|(index, decision)| (decision.content, index)).collect();
        Self { list, by_content }
    }
}

/// Returns the time, seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

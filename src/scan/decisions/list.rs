//! The list of decisions, and its stored form: JSON.

use serde::{Deserialize, Serialize};

use crate::scan::digest_text;

/// Maximum length of a comment, bytes.
pub const MAX_COMMENT: usize = 200;

/// All decisions, in the order in which they were made.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionList {
    /// Incremented by each change. The list without any decision has number 0.
    pub number: u64,
    /// At most one for each content.
    pub decisions: Vec<OperatorDecision>,
}

/// A decision about one content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorDecision {
    /// SHA-256 of the plaintext.
    #[serde(with = "digest_text")]
    pub content: [u8; 32],
    pub action: DecisionAction,
    /// Why the operator decided so; at most [`MAX_COMMENT`] bytes.
    pub comment: String,
    /// When the decision was made, seconds since 1970.
    pub made: u64,
    /// When it ends, seconds since 1970.
    pub end: u64,
}

/// What a decision does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionAction {
    /// The file is clean, whatever an engine finds.
    Allow,
    /// The file is not clean.
    Block,
}

/// A change of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecisionChange {
    /// Adds a decision, in place of an earlier one about the same content.
    Add(OperatorDecision),
    /// Removes the decision about a content.
    Remove([u8; 32]),
}

impl DecisionAction {
    /// Returns the name in the API and in the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
        }
    }
}

impl DecisionChange {
    /// Returns the SHA-256 of the content.
    #[must_use]
    pub fn content(&self) -> &[u8; 32] {
        match self {
            Self::Add(decision) => &decision.content,
            Self::Remove(content) => content,
        }
    }
}

impl DecisionList {
    /// Returns what was decided about a content, also if the decision has ended.
    #[must_use]
    pub fn action(&self, content: &[u8; 32]) -> Option<DecisionAction> {
        let mut decisions = self.decisions.iter();
        decisions.find(|decision| decision.content == *content).map(|decision| decision.action)
    }

    /// Returns the list after a change, without decisions that have ended. `None` if the change changes nothing.
    pub(super) fn changed(&self, change: &DecisionChange, now: u64) -> Option<Self> {
        let content = change.content();
        let others =
            |decision: &&OperatorDecision| decision.content != *content && decision.end > now;
        let mut decisions: Vec<_> = self.decisions.iter().filter(others).cloned().collect();
        match change {
            DecisionChange::Add(decision) => decisions.push(decision.clone()),
            DecisionChange::Remove(_) => {
                let mut current = self.decisions.iter();
                current.find(|decision| decision.content == *content && decision.end > now)?;
            }
        }
        Some(Self { number: self.number.checked_add(1)?, decisions })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Fails only for types that JSON cannot represent.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// # Errors
    /// If the list is of another version of this program.
    pub(super) fn decode(list: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(content: u8, end: u64) -> OperatorDecision {
        let (comment, content) = ("why".to_owned(), [content; 32]);
        OperatorDecision { content, action: DecisionAction::Allow, comment, made: 0, end }
    }

    #[test]
    fn each_change_has_its_number_and_removes_what_has_ended() {
        let add = |content, end| DecisionChange::Add(decision(content, end));
        let list = DecisionList::default().changed(&add(1, 10), 0).unwrap();
        let list = list.changed(&add(2, 20), 0).unwrap();
        let list = list.changed(&add(1, 30), 0).unwrap();
        assert_eq!(list.number, 3);
        assert_eq!(list.decisions, [decision(2, 20), decision(1, 30)]);
        let list = list.changed(&add(3, 40), 20).unwrap();
        assert_eq!(list.decisions, [decision(1, 30), decision(3, 40)]);
        let list = list.changed(&DecisionChange::Remove([1; 32]), 20).unwrap();
        assert_eq!((list.number, &*list.decisions), (5, &[decision(3, 40)][..]));
        assert_eq!(list.changed(&DecisionChange::Remove([1; 32]), 20), None);
        assert_eq!(list.changed(&DecisionChange::Remove([3; 32]), 40), None, "it has ended");
    }

    #[test]
    fn list_is_read_as_it_was_written() {
        let list = DecisionList { number: u64::MAX, decisions: vec![decision(255, 5)] };
        assert_eq!(DecisionList::decode(&list.encode()).unwrap(), list);
        assert_eq!(list.changed(&DecisionChange::Remove([255; 32]), 0), None, "the last number");
        for other in [&b""[..], b"{}", b"[]", br#"{"number":-1,"decisions":[]}"#] {
            DecisionList::decode(other).unwrap_err();
        }
    }
}

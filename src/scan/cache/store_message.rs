//! What replicas that share a store tell each other: JSON, which the store seals.

use serde::{Deserialize, Serialize};

use crate::scan::digest_text;

/// A change that affects what other replicas hold in memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::scan) enum StoreMessage {
    /// A content was found infected.
    Infected {
        #[serde(with = "digest_text")]
        content: [u8; 32],
        /// Fingerprint of the engines.
        engines: u64,
    },
    /// An operator had the outcomes for a content forgotten.
    Forgotten {
        #[serde(with = "digest_text")]
        content: [u8; 32],
    },
    /// An operator had the entries of a media URI forgotten.
    MediaForgotten {
        /// The tag of the URI.
        tag: [u8; 8],
    },
    /// All records were removed.
    AllRemoved,
    /// An operator has made or removed a decision.
    Decided {
        /// Number of the list of decisions.
        number: u64,
    },
}

impl StoreMessage {
    pub(in crate::scan) fn encode(&self) -> Vec<u8> {
        // Fails only for types that JSON cannot represent.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// # Errors
    /// If the message is of another version of this program.
    pub(super) fn decode(message: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let content = [7; 32];
        let messages = [
            StoreMessage::Infected { content, engines: u64::MAX },
            StoreMessage::Forgotten { content },
            StoreMessage::MediaForgotten { tag: [9; 8] },
            StoreMessage::AllRemoved,
            StoreMessage::Decided { number: 7 },
        ];
        for message in messages {
            assert_eq!(StoreMessage::decode(&message.encode()).unwrap(), message);
        }
        for other in [&b""[..], b"{}", br#"{"infected":{"content":"AAAA"}}"#, b"\xff"] {
            StoreMessage::decode(other).unwrap_err();
        }
    }
}

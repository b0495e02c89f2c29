//! What replicas that share a store tell each other: JSON, which the store seals.

use serde::{Deserialize, Serialize};

/// A change that affects what other replicas hold in memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum StoreMessage {
    /// A content was found infected.
    Infected {
        #[serde(with = "digest")]
        content: [u8; 32],
        /// Fingerprint of the engines.
        engines: u64,
    },
    /// An operator had the outcomes for a content forgotten.
    Forgotten {
        #[serde(with = "digest")]
        content: [u8; 32],
    },
    /// All records were removed.
    AllRemoved,
}

impl StoreMessage {
    pub(super) fn encode(&self) -> Vec<u8> {
        // Fails only for types that JSON cannot represent.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// # Errors
    /// If the message is of another version of this program.
    pub(super) fn decode(message: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(message)
    }
}

/// SHA-256 in base64.
mod digest {
    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        digest: &[u8; 32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)?;
        bytes.try_into().map_err(|_| D::Error::custom("not a SHA-256"))
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
            StoreMessage::AllRemoved,
        ];
        for message in messages {
            assert_eq!(StoreMessage::decode(&message.encode()).unwrap(), message);
        }
        for other in [&b""[..], b"{}", br#"{"infected":{"content":"AAAA"}}"#, b"\xff"] {
            StoreMessage::decode(other).unwrap_err();
        }
    }
}

//! Seals of events.

use crate::{
    secret::{BadRecord, SealError},
    secret_ring::SecretRing,
    state::Now,
};

use super::limits::MAX_MESSAGE;

/// Random name of a process.
pub(crate) type NodeId = [u8; 8];

/// Data that seals of events are bound to. Differs from that of records in the first byte, which is no kind of record.
const EVENT_DATA: &[u8] = b"\xe0event";

/// Version of the format of an event. The first byte of its plaintext.
const EVENT_FORMAT: u8 = 1;

/// Time in seconds for which an event is valid after it was written. Limits replays.
const EVENT_TIME: u64 = 3600;

/// An event of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SealedEvent {
    pub(crate) node: NodeId,
    /// Position among the events of the node, from 1.
    pub(crate) number: u64,
    /// `None`: the message was too long, and is lost.
    pub(crate) message: Option<Vec<u8>>,
}

/// Seals events of this process, and opens those of others.
#[derive(Clone)]
pub(crate) struct EventSealer {
    pub(crate) secrets: SecretRing,
    pub(crate) now: Now,
    pub(crate) node: NodeId,
}

impl EventSealer {
    pub(crate) fn seal(&self, number: u64, message: Option<&[u8]>) -> Result<Vec<u8>, SealError> {
        let expiry = (self.now)().saturating_add(EVENT_TIME);
        let plaintext = [
            &[EVENT_FORMAT][..],
            &expiry.to_le_bytes(),
            &self.node,
            &number.to_le_bytes(),
            &[u8::from(message.is_some())],
            message.unwrap_or_default(),
        ];
        self.secrets.current().seal_bytes(EVENT_DATA, &plaintext.concat())
    }

    /// Opens an event. Accepts any bytes.
    pub(crate) fn open(&self, sealed: &[u8]) -> Result<SealedEvent, BadRecord> {
        let plaintext = self.secrets.open_by_any(|secret| secret.open_bytes(EVENT_DATA, sealed))?;
        let (&format, rest) = plaintext.split_first().ok_or(BadRecord::Length)?;
        if format != EVENT_FORMAT {
            return Err(BadRecord::Format(format));
        }
        let (&expiry, rest) = rest.split_first_chunk().ok_or(BadRecord::Length)?;
        let (&node, rest) = rest.split_first_chunk().ok_or(BadRecord::Length)?;
        let (&number, rest) = rest.split_first_chunk().ok_or(BadRecord::Length)?;
        let (&has_message, message) = rest.split_first().ok_or(BadRecord::Length)?;
        let expiry = u64::from_le_bytes(expiry);
        if expiry <= (self.now)() {
            return Err(BadRecord::Expired(expiry));
        }
        if message.len() > MAX_MESSAGE {
            return Err(BadRecord::Length);
        }
        let message = (has_message == 1).then(|| message.to_owned());
        Ok(SealedEvent { node, number: u64::from_le_bytes(number), message })
    }
}

//! Fuzz target: bytes that a server sends.

use std::sync::Arc;

use redis::{Value, parse_redis_value};

use crate::{RecordKind, RecordName, StoreSecret};

use super::{
    event_seal::EventSealer,
    event_tracker::EventTracker,
    references::decode_references,
    replies::{number, optional_strings, strings},
    resp_limit::ReplyLimit,
    servers::ServerAddress,
    slots::SlotMap,
};

/// Checks bytes as replies of a server, and decodes those that are complete and within the limits.
///
/// # Panics
/// If the check and the decoder disagree about where a reply ends, or a reply contains a valid event.
pub(crate) fn check_replies(bytes: &[u8]) {
    let mut limit = ReplyLimit::new();
    let mut start = 0;
    let mut is_accepted = true;
    for (index, byte) in bytes.iter().enumerate() {
        if limit.check(&[*byte]).is_err() {
            is_accepted = false;
            break;
        }
        if limit.is_between_replies() {
            let reply = bytes.get(start..=index).unwrap_or_default();
            start = index + 1;
            check_reply(reply);
        }
    }
    let mut whole = ReplyLimit::new();
    assert_eq!(whole.check(bytes).is_ok(), is_accepted, "the parts of the bytes matter");
}

/// Decodes one reply in each way that calls do.
fn check_reply(bytes: &[u8]) {
    let reply = match parse_redis_value(bytes) {
        Ok(reply) => reply,
        // The decoder also rejects lines that are not UTF-8, and numbers above 63 bits.
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains("end of input"), "{text}");
            return;
        }
    };
    let _ = number(&reply);
    let _ = optional_strings(reply.clone(), 2);
    let _ = strings(reply.clone(), 100);
    let _ = decode_references(RecordKind::Reference, RecordName([1; 16]), reply.clone());
    if let Some(asked) = ServerAddress::new("asked", 1) {
        let slots = SlotMap::parse(&reply, &asked);
        assert!(slots.is_none_or(|slots| !slots.nodes().is_empty()));
    }
    check_events(&reply);
}

fn check_events(reply: &Value) {
    let secret = StoreSecret::derive(b"secret of the fuzz target");
    let sealer = EventSealer { secrets: secret.into(), now: Arc::new(|| 0), node: [1; 8] };
    let mut tracker = EventTracker::new(sealer, Arc::default());
    for _ in 0..3 {
        let replies = vec![reply.clone(); tracker.call().pipeline.len()];
        let Ok(polled) = tracker.decode(replies) else { return };
        let applied = tracker.apply(polled);
        assert!(applied.messages.is_empty(), "a forged event is valid");
    }
}

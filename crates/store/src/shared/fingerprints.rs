//! Fingerprints of the keys of all replicas.

use redis::Value;

use super::{
    connection::{CallError, StoreCall},
    key_names::{FINGERPRINTS_KEY, parse_hex, push_hex},
    link::StoreLink,
    replies::{next_reply, number, only, parse_decimal, strings},
};

/// Time in seconds after which a fingerprint is removed.
const FINGERPRINT_TIME: u64 = 60;

/// Maximum number of fingerprints that are returned.
const MAX_FINGERPRINTS: usize = 16;

/// Publishes a fingerprint, if there is one, and returns the recent ones. By the clock of the server, because those of replicas differ.
pub(crate) async fn exchange(
    link: &StoreLink,
    own: Option<[u8; 8]>,
) -> Result<Vec<[u8; 8]>, CallError> {
    let now = server_time(link).await?;
    let (now, start) = (now.to_string(), now.saturating_sub(FINGERPRINT_TIME).to_string());
    let before = format!("({start}");
    let limit = MAX_FINGERPRINTS.to_string();
    let range: [&[u8]; 6] =
        [FINGERPRINTS_KEY, start.as_bytes(), b"+inf", b"LIMIT", b"0", limit.as_bytes()];
    let mut call = StoreCall::new(FINGERPRINTS_KEY);
    if let Some(own) = own {
        let mut member = Vec::new();
        push_hex(&mut member, &own);
        call.push("ZADD", &[FINGERPRINTS_KEY, now.as_bytes(), &member]);
        call.push("ZREMRANGEBYSCORE", &[FINGERPRINTS_KEY, b"-inf", before.as_bytes()]);
    }
    call.push("ZRANGEBYSCORE", &range);
    link.query(&call, |replies| {
        let mut replies = replies.into_iter();
        if own.is_some() {
            number(&next_reply(&mut replies)?)?;
            number(&next_reply(&mut replies)?)?;
        }
        let members = strings(next_reply(&mut replies)?, MAX_FINGERPRINTS)?;
        Ok(members.iter().filter_map(|member| parse_hex(member)).collect())
    })
    .await
}

/// Returns the time of the server, seconds since the Unix epoch.
pub(crate) async fn server_time(link: &StoreLink) -> Result<u64, CallError> {
    let call = StoreCall::new(FINGERPRINTS_KEY).command("TIME", &[]);
    link.query(&call, decode_time).await
}

/// Decodes the seconds of TIME.
fn decode_time(replies: Vec<Value>) -> Result<u64, CallError> {
    match &*strings(only(replies)?, 2)? {
        [seconds, _] => parse_decimal(seconds),
        _ => Err(CallError::Reply("TIME returned no time")),
    }
}

//! Decoded replies. Any other shape is an invalid reply.

use redis::Value;

use super::connection::CallError;

/// Returns the only reply of a call of one command. An error of the command is an error.
pub(crate) fn only(replies: Vec<Value>) -> Result<Value, CallError> {
    let mut replies = replies.into_iter();
    match (replies.next(), replies.next()) {
        (Some(Value::ServerError(error)), None) => Err(CallError::from_server(&error)),
        (Some(reply), None) => Ok(reply),
        _ => Err(CallError::Reply("the number of replies differs from that of commands")),
    }
}

/// Returns the strings of an array, `None` for missing ones.
pub(crate) fn optional_strings(
    reply: Value,
    expected: usize,
) -> Result<Vec<Option<Vec<u8>>>, CallError> {
    let Value::Array(values) = reply else { return Err(not_strings(&reply)) };
    if values.len() != expected {
        return Err(CallError::Reply("an array has another number of elements than keys"));
    }
    values.into_iter().map(optional_string).collect()
}

pub(crate) fn optional_string(reply: Value) -> Result<Option<Vec<u8>>, CallError> {
    match reply {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::Nil => Ok(None),
        other => Err(not_strings(&other)),
    }
}

/// Returns the strings of an array of at most `max` elements.
pub(crate) fn strings(reply: Value, max: usize) -> Result<Vec<Vec<u8>>, CallError> {
    let Value::Array(values) = reply else { return Err(not_strings(&reply)) };
    if values.len() > max {
        return Err(CallError::Reply("an array has more elements than requested"));
    }
    let strings = values.into_iter().map(|value| match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(not_strings(&other)),
    });
    strings.collect()
}

fn not_strings(reply: &Value) -> CallError {
    match reply {
        Value::ServerError(error) => CallError::from_server(error),
        _ => CallError::Reply("a value is no string"),
    }
}

/// Returns a number that is not negative.
pub(crate) fn number(reply: &Value) -> Result<u64, CallError> {
    match reply {
        Value::ServerError(error) => Err(CallError::from_server(error)),
        Value::Int(number) => {
            u64::try_from(*number).map_err(|_| CallError::Reply("a number is negative"))
        }
        _ => Err(CallError::Reply("a value is no number")),
    }
}

/// Parses a decimal number in a string.
pub(crate) fn parse_decimal(text: &[u8]) -> Result<u64, CallError> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or(CallError::Reply("a value is no decimal number"))
}

/// Splits off the first reply.
pub(crate) fn next_reply(replies: &mut impl Iterator<Item = Value>) -> Result<Value, CallError> {
    replies.next().ok_or(CallError::Reply("a reply is missing"))
}

//! Limits of replies, compared with the decoder that they protect.

use proptest::prelude::*;
use redis::{Value, parse_redis_value};

use super::super::{
    limits::{MAX_BULK, MAX_DEPTH, MAX_ELEMENTS, MAX_LINE},
    resp_limit::{ReplyLimit, ReplyLimitError},
};

/// Checks bytes in parts of this length.
fn check(bytes: &[u8], part: usize) -> Result<(), ReplyLimitError> {
    let mut limit = ReplyLimit::new();
    bytes.chunks(part).try_for_each(|part| limit.check(part))
}

/// Returns the error, which does not depend on the length of the parts.
fn error(bytes: &[u8]) -> ReplyLimitError {
    let error = check(bytes, bytes.len()).unwrap_err();
    assert_eq!(check(bytes, 1), Err(error));
    error
}

#[test]
fn ordinary_replies_are_accepted() {
    let replies: [&[u8]; 12] = [
        b"+OK\r\n",
        b"-ERR unknown\r\n",
        b":-5\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"$0\r\n\r\n",
        b"*0\r\n",
        b"$4\r\n\r\n\r\n\r\n",
        b"*2\r\n$1\r\na\r\n$-1\r\n",
        b"*2\r\n*1\r\n*0\r\n:1\r\n",
        b"*1\r\n*2\r\n:0\r\n*1\r\n+a\r\n",
        b"+\r\n",
    ];
    let all = replies.concat();
    for part in [1, 2, 3, 7, all.len()] {
        check(&all, part).unwrap();
    }
    for reply in replies {
        // The decoder reads one reply, and nothing after it.
        parse_redis_value(reply).unwrap();
    }
    check(&[format!("${MAX_BULK}\r\n").as_bytes(), &vec![b'x'; MAX_BULK], b"\r\n"].concat(), 4096)
        .unwrap();
    check(format!("*{MAX_ELEMENTS}\r\n{}+OK\r\n", ":1\r\n".repeat(MAX_ELEMENTS)).as_bytes(), 4096)
        .unwrap();
    check("*1\r\n".repeat(MAX_DEPTH).as_bytes(), 4096).unwrap();
}

#[test]
fn hostile_replies_end_the_connection_at_their_first_bytes() {
    assert_eq!(error(b"$1000000000000000000\r\n"), ReplyLimitError::Bulk);
    assert_eq!(error(format!("${}\r\n", MAX_BULK + 1).as_bytes()), ReplyLimitError::Bulk);
    assert_eq!(error(b"*1000000000000000000\r\n"), ReplyLimitError::Elements);
    assert_eq!(
        error(format!("*2\r\n:1\r\n*{MAX_ELEMENTS}\r\n").as_bytes()),
        ReplyLimitError::Elements
    );
    assert_eq!(error("*1\r\n".repeat(MAX_DEPTH + 1).as_bytes()), ReplyLimitError::Depth);
    assert_eq!(error(format!("+{}", "x".repeat(MAX_LINE + 1)).as_bytes()), ReplyLimitError::Line);
    for number in ["$99999999999999999999", ":", ":-", ":--1", ":1x", ":1 ", ":+1", ": 1", "$1\n"] {
        assert_eq!(error(format!("{number}\r\n").as_bytes()), ReplyLimitError::Number, "{number}");
    }
    assert_eq!(error(b"$1\r\nab\r\n"), ReplyLimitError::BulkEnd);
    assert_eq!(error(b"$-0\r\n+"), ReplyLimitError::BulkEnd);
    for start in b"%~>|#,(_!=x\r\n\0" {
        assert_eq!(error(&[*start, b'1', b'\r', b'\n']), ReplyLimitError::Type(*start));
    }
    // A reply of many long strings.
    let long = [format!("${MAX_BULK}\r\n").as_bytes(), &vec![b'x'; MAX_BULK], b"\r\n"].concat();
    let many = [b"*1000\r\n", &*long.repeat(100)].concat();
    assert_eq!(check(&many, 4096), Err(ReplyLimitError::Reply));
}

/// Encodes a reply as a server does.
fn encode(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Int(number) => bytes.extend(format!(":{number}\r\n").bytes()),
        Value::BulkString(text) => {
            bytes.extend(format!("${}\r\n", text.len()).bytes());
            bytes.extend(text);
            bytes.extend(b"\r\n");
        }
        Value::Array(values) => {
            bytes.extend(format!("*{}\r\n", values.len()).bytes());
            for value in values {
                encode(value, bytes);
            }
        }
        Value::SimpleString(text) => bytes.extend(format!("+{text}\r\n").bytes()),
        _ => bytes.extend(b"$-1\r\n"),
    }
}

fn any_reply() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::Int),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(Value::BulkString),
        "[a-zA-Z \\r]{0,20}".prop_map(Value::SimpleString),
        Just(Value::Nil),
    ];
    let array = |inner| prop::collection::vec(inner, 0..5).prop_map(Value::Array);
    leaf.prop_recursive(4, 40, 5, array)
}

proptest! {
    /// The boundaries of replies are those of the decoder: each reply is complete where the decoder ends.
    #[test]
    fn valid_replies_are_accepted(replies in prop::collection::vec(any_reply(), 1..5), part in 1..20_usize) {
        let mut limit = ReplyLimit::new();
        for reply in replies {
            let mut bytes = Vec::new();
            encode(&reply, &mut bytes);
            prop_assert!(parse_redis_value(&bytes).is_ok());
            for part in bytes.chunks(part) {
                prop_assert_eq!(limit.check(part), Ok(()));
            }
            prop_assert!(limit.is_between_replies());
        }
    }

    /// What the check accepts as a reply, the decoder reads as one.
    #[test]
    fn altered_replies_are_read_alike(reply in any_reply(), position in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = Vec::new();
        encode(&reply, &mut bytes);
        let position = position.index(bytes.len());
        bytes[position] = byte;
        let mut limit = ReplyLimit::new();
        for (index, byte) in bytes.iter().enumerate() {
            if limit.check(&[*byte]).is_err() {
                return Ok(());
            }
            if limit.is_between_replies() {
                // The decoder also rejects texts that are not UTF-8.
                let is_text = std::str::from_utf8(&bytes[..=index]).is_ok();
                prop_assert!(!is_text || parse_redis_value(&bytes[..=index]).is_ok());
                return Ok(());
            }
        }
    }
}

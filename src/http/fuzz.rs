//! Fuzz targets: builds a `Content-Disposition` from any header and any file name, and parses any bytes as a body with
//! an `EncryptedFile`. `cargo test` replays the kept corpora.

#![expect(clippy::expect_used, reason = "a panic is how a failure is reported to the fuzzer")]

use axum::http::HeaderValue;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::encrypted_file::{EncryptedMedia, parse};
use crate::media::{decrypt::Decryption, disposition::content_disposition};

/// Maximum length of a file name in a response, bytes.
const MAX_NAME: usize = 255;

/// Checks one input: a byte of flags (1: a safe type, 2: a name in the path, 4: no upstream value), the upstream value,
/// and after a line feed the name in the path.
///
/// # Panics
/// If the value could inject a header or a parameter, displays active content inline, loses the name, or changes when
/// it is processed again.
pub fn disposition(input: &[u8]) {
    let Some((flags, rest)) = input.split_first() else { return };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (upstream, name) = rest.split_at(end);
    let essence = if flags & 1 == 0 { "text/html" } else { "image/png" };
    let name = String::from_utf8_lossy(name.get(1..).unwrap_or_default());
    let name = (flags & 2 != 0).then_some(&*name);
    let upstream = HeaderValue::from_bytes(upstream).ok().filter(|_| flags & 4 == 0);
    let made = content_disposition(upstream.as_ref(), essence, name);
    let bytes = made.as_bytes();
    assert!(bytes.iter().all(|byte| *byte >= b' ' && *byte != 0x7f || *byte == b'\t'), "{made:?}");
    let trimmed = bytes.trim_ascii_start();
    let end = trimmed.iter().position(|byte| b"; \t".contains(byte)).unwrap_or(trimmed.len());
    let disposition = trimmed.get(..end).unwrap_or_default();
    let is_inline = disposition.eq_ignore_ascii_case(b"inline");
    assert!(is_inline || disposition.eq_ignore_ascii_case(b"attachment"), "{made:?}");
    assert!(!is_inline || essence == "image/png", "{made:?} displays {essence}");
    let again = content_disposition(Some(&made), essence, None);
    assert_eq!(again, made, "not accepted as an upstream value");
    if name.is_some() || upstream.as_ref() != Some(&made) {
        let built = built_name(bytes).expect("a value of the documented form");
        assert!(built.len() <= MAX_NAME && !built.contains(char::is_control), "{built:?}");
        if let Some(name) = name {
            let expected: String = name.chars().filter(|c| !c.is_control()).collect();
            let is_kept = expected == built || expected.len() > MAX_NAME;
            assert!(is_kept && expected.starts_with(&*built), "{expected:?} became {built:?}");
        }
    }
}

/// Returns the name in a value that the service built, empty if the value has no name; `None` if the value has another
/// form: `TYPE[; filename="ASCII"[; filename*=UTF-8''ENCODED]]`.
fn built_name(value: &[u8]) -> Option<String> {
    let text = str::from_utf8(value).ok()?;
    let mut parts = text.split("; filename");
    parts.next().filter(|disposition| ["inline", "attachment"].contains(disposition))?;
    let Some(_) = text.find("; filename=") else { return (!text.contains(';')).then(String::new) };
    let (_, parameters) = text.split_once("; filename=\"")?;
    let (ascii, rest) = parameters.split_once('"')?;
    let is_plain = |c: char| c == ' ' || c.is_ascii_graphic() && !matches!(c, '\\' | '%');
    if !ascii.chars().all(is_plain) {
        return None;
    }
    if rest.is_empty() {
        return Some(ascii.to_owned());
    }
    let encoded = rest.strip_prefix("; filename*=UTF-8''")?;
    let is_encoded = |c: char| c.is_ascii_alphanumeric() || "!#$&+-.^_`|~%".contains(c);
    let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().ok()?;
    encoded.chars().all(is_encoded).then(|| decoded.into_owned())
}

/// Checks one input: a body, and after a NUL byte the plaintext of its `encrypted_body`.
///
/// # Panics
/// If an accepted file differs from what another parser of JSON and base64 reads, or if an error quotes the input.
pub fn encrypted_file(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (body, plaintext) = input.split_at(end);
    let plaintext = plaintext.get(1..).unwrap_or_default();
    let mut is_opened = false;
    let parsed = parse(body, |_, _, _| {
        is_opened = true;
        Ok(Zeroizing::new(plaintext.to_vec()))
    });
    let text = if is_opened { plaintext } else { body };
    match parsed {
        Ok(EncryptedMedia { media, decryption }) => {
            let value: Value = serde_json::from_slice(text).expect("JSON");
            let file = value.get("file").and_then(Value::as_object).expect("a file");
            assert_eq!(member(file, &["url"]), media.to_string());
            let key = decoded(member(file, &["key", "k"]));
            let (iv, hash) = (member(file, &["iv"]), member(file, &["hashes", "sha256"]));
            assert!(*decryption == Decryption::new(key, decoded(iv), decoded(hash)), "{value}");
            assert_eq!(member(file, &["v"]), "v2");
            assert_eq!(member(file, &["key", "alg"]), "A256CTR");
            let canonical = serde_json::json!({ "file": file }).to_string();
            let again = parse(canonical.as_bytes(), |_, _, _| Ok(Zeroizing::default()));
            let again = again.expect("accepted in another spelling");
            assert!(again.media == media && again.decryption == decryption, "{canonical}");
        }
        Err(error) => {
            let (shown, debug) = (error.to_string(), format!("{error:?}"));
            let words = text.split(|byte| !byte.is_ascii_alphanumeric());
            for word in words.filter(|word| word.len() >= 20) {
                let word = String::from_utf8_lossy(word);
                assert!(!shown.contains(&*word) && !debug.contains(&*word), "quotes {word}");
            }
        }
    }
}

/// Returns a string in a JSON object.
fn member<'v>(object: &'v Map<String, Value>, path: &[&str]) -> &'v str {
    let mut value = None;
    for name in path {
        let parent = value.map_or(Some(object), Value::as_object);
        value = parent.and_then(|parent| parent.get(*name));
    }
    value.and_then(Value::as_str).expect("a string")
}

/// Decodes base64 in either alphabet.
fn decoded<const N: usize>(text: &str) -> [u8; N] {
    let digits = text.trim_end_matches('=').bytes().map(|byte| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => 64,
    });
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in digits {
        assert!(digit < 64, "accepted {text:?}");
        bits = bits << 6 & 0xffff | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff).to_le_bytes()[0]);
        }
    }
    bytes.try_into().expect("a value of the right length")
}

#[cfg(test)]
mod tests {
    #[test]
    fn kept_inputs_satisfy_invariants() {
        mcs_testing::replay_corpus("disposition", super::disposition);
        mcs_testing::replay_corpus("encrypted_file", super::encrypted_file);
    }
}

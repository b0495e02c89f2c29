//! Tests of input that parsers interpret differently: the service has a single interpretation of it or rejects it.
//! `docs/encrypted-files.md` lists these cases.

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    EncryptedMedia, parse,
    tests::{file, is_malformed, no_decryption, parse_file, with},
};
use crate::http::request_error::RequestError;

/// Parses text as a plaintext body, and as the plaintext of an `encrypted_body`.
fn parse_both(text: &str) -> [Result<EncryptedMedia, RequestError>; 2] {
    let sealed = r#"{"encrypted_body":{"ciphertext":"c","mac":"m","ephemeral":"e"}}"#;
    let contents = text.as_bytes().to_vec();
    [
        parse(text.as_bytes(), no_decryption),
        parse(sealed.as_bytes(), |_, _, _| Ok(Zeroizing::new(contents))),
    ]
}

fn assert_malformed(text: &str) {
    for outcome in parse_both(text) {
        assert!(is_malformed(&outcome), "{text}: {outcome:?}");
    }
}

/// Asserts that the text is accepted, with the same meaning as [`file`].
fn assert_same(text: &str) {
    let plain = parse_file(&file()).unwrap();
    for outcome in parse_both(text) {
        let parsed = outcome.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(*parsed.decryption == *plain.decryption && parsed.media == plain.media, "{text}");
    }
}

fn body(file: &Value) -> String {
    json!({ "file": file }).to_string()
}

/// Returns the body with `fragment` as the first or the last member of the given object.
fn with_member(object: &str, fragment: &str, first: bool) -> String {
    let mut parent = file();
    let child = parent.pointer_mut(object).unwrap();
    let members = child.to_string();
    let members = members.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
    let members = if first {
        format!("{{{fragment},{members}}}")
    } else {
        format!("{{{members},{fragment}}}")
    };
    *child = json!("PLACE");
    body(&parent).replace("\"PLACE\"", &members)
}

/// Writes the first character of a name as an escape.
fn escaped(name: &str) -> String {
    format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..])
}

#[test]
fn rejects_repeated_field_in_every_object() {
    for (object, names) in [
        ("", &["v", "key", "iv", "hashes", "url"][..]),
        ("/key", &["kty", "alg", "ext", "key_ops", "k"]),
        ("/hashes", &["sha256"]),
    ] {
        for name in names {
            let value = file().pointer(&format!("{object}/{name}")).unwrap().to_string();
            for name in [(*name).to_owned(), escaped(name)] {
                for value in [&*value, "null"] {
                    let member = format!("\"{name}\":{value}");
                    assert_malformed(&with_member(object, &member, true));
                    assert_malformed(&with_member(object, &member, false));
                }
            }
        }
    }
    let file = file();
    for second in ["file", "\\u0066ile"] {
        assert_malformed(&format!(r#"{{"file":{file},"{second}":{file}}}"#));
        assert_malformed(&format!(r#"{{"file":null,"{second}":{file}}}"#));
    }
}

#[test]
fn rejects_repeated_encrypted_body_and_repeated_part() {
    let sealed = r#"{"ciphertext":"c","mac":"m","ephemeral":"e"}"#;
    for (first, second) in [(sealed, sealed), ("null", sealed), (sealed, "null")] {
        let text = format!(r#"{{"encrypted_body":{first},"encrypted_\u0062ody":{second}}}"#);
        assert!(is_malformed(&parse(text.as_bytes(), no_decryption)), "{text}");
    }
    for part in ["ciphertext", "mac", "ephemeral", "\\u006dac"] {
        let sealed = sealed.replacen('{', &format!("{{\"{part}\":\"x\","), 1);
        let text = format!(r#"{{"encrypted_body":{sealed}}}"#);
        let outcome = parse(text.as_bytes(), no_decryption);
        assert!(matches!(outcome, Err(RequestError::BadDecryption { .. })), "{text}");
    }
}

#[test]
fn ignores_unknown_fields_with_any_value() {
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    let values = ["1", "null", "1e999", "-0", r#""\ud800""#, r#"{"k":1,"k":2}"#, &deep];
    for object in ["", "/key", "/hashes"] {
        for value in values {
            let member = format!("\"x\":{value}");
            assert_same(&with_member(object, &member, true));
            assert_same(&with_member(object, &format!("{member},{member}"), false));
        }
    }
    // Names are compared byte for byte.
    assert_same(&with_member("", r#""IV":"//////////////////////","Iv":1,"iv ":2"#, true));
    assert_same(&with_member("/key", r#""K":"x","ſ":1,"key":{"k":2}"#, false));
    let mut renamed = file();
    let iv = renamed.as_object_mut().unwrap().remove("iv").unwrap();
    renamed["IV"] = iv;
    assert_malformed(&body(&renamed));
}

#[test]
fn decodes_escapes_in_names_and_values() {
    let text = body(&file());
    assert_same(&text.replace("A256CTR", "\\u0041256CTR"));
    assert_same(&text.replace("mxc://", "mxc:\\/\\/"));
    assert_same(&text.replace("\"iv\":\"A", "\"\\u0069v\":\"\\u0041"));
    for broken in ["\\ud800", "\\udc00\\ud800", "\\u0000", "\\x41", "\u{1}", "\\u00e9", "\u{feff}"]
    {
        for name in ["v2", "oct", "A256CTR", "mxc://"] {
            assert_malformed(&text.replace(name, &format!("{name}{broken}")));
        }
    }
    // A name with a lone surrogate is not valid text.
    assert_malformed(&with_member("", r#""\ud800":1"#, true));
}

#[test]
fn rejects_text_with_any_invalid_json() {
    let text = body(&file());
    let fields = text.strip_suffix('}').unwrap();
    for text in [
        format!("\u{feff}{text}"),
        format!("{text}{text}"),
        format!("{text},"),
        format!("{text}\0"),
        format!("{fields},}}"),
        format!("{fields},\"x\":01}}"),
        format!("{fields},\"x\":NaN}}"),
        format!("{fields},\"x\":\"\u{7}\"}}"),
        format!("{fields}/* */}}"),
        text.replace('"', "'"),
    ] {
        assert_malformed(&text);
    }
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(is_malformed(&parse(&utf16, no_decryption)));
    assert_same(&format!(" \t\r\n{text}\n"));
}

#[test]
fn base64_has_a_single_interpretation() {
    // Returns the file with the last, partly used character of a field replaced.
    let with_last = |pointer: &str, replacement: &str| {
        let text = file().pointer(pointer).unwrap().as_str().unwrap().to_owned();
        with(pointer, json!(format!("{}{replacement}", &text[..text.len() - 1])))
    };
    // Unused bits of the last character are dropped.
    for (pointer, ends) in [
        ("/iv", ["A", "B", "P", "A=", "A==", "P=="]),
        ("/key/k", ["8", "9", "-", "8=", "9=", "-="]),
        ("/hashes/sha256", ["A", "B", "D", "A=", "B=", "D="]),
    ] {
        for end in ends {
            assert_same(&body(&with_last(pointer, end)));
        }
    }
    // Whitespace, padding within or beyond the text, and the other alphabet are not skipped.
    for pointer in ["/iv", "/key/k", "/hashes/sha256"] {
        let text = file().pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let (start, rest) = text.split_at(4);
        for wrong in [
            format!(" {text}"),
            format!("{text}\n"),
            format!("{start}\r\n{rest}"),
            format!("{start}={rest}"),
            format!("{start}===={rest}"),
            format!("{text}==="),
            format!("{text}===="),
            format!("{start}*{rest}"),
            format!("{text}\0"),
            format!("{text}A"),
            text[..text.len() - 1].to_owned(),
            // A decoder that skips characters of the other alphabet would find the right length.
            format!("-{text}+"),
            format!("{}-+", &text[..text.len() - 2]),
            format!("{}+_", &text[..text.len() - 2]),
            format!("/_{}", &text[2..]),
            text.replace('A', "Ａ") + "Ａ",
        ] {
            for outcome in parse_both(&body(&with(pointer, json!(wrong)))) {
                let rejected = matches!(outcome, Err(RequestError::InvalidKeyField { .. }));
                assert!(rejected, "{pointer} {wrong:?}");
            }
        }
    }
}

#[test]
fn accepts_only_the_specified_key_algorithm() {
    // Additional and repeated operations do not affect decryption.
    for key_ops in [
        json!(["decrypt", "encrypt"]),
        json!(["encrypt", "decrypt", "decrypt"]),
        json!(["encrypt", "decrypt", "wrapKey", "other"]),
    ] {
        assert_same(&body(&with("/key/key_ops", key_ops)));
    }
    for (pointer, wrong) in [
        ("/v", json!("V2")),
        ("/v", json!("v1")),
        ("/v", json!("v2 ")),
        ("/v", json!("")),
        ("/v", json!(2)),
        ("/key/alg", json!("a256ctr")),
        ("/key/alg", json!("A256CBC")),
        ("/key/alg", json!("A256CTR ")),
        ("/key/kty", json!("OCT")),
        ("/key/ext", json!(false)),
        ("/key/ext", json!("true")),
        ("/key/ext", json!(1)),
        ("/key/key_ops", json!("encrypt decrypt")),
        ("/key/key_ops", json!(["Encrypt", "decrypt"])),
        ("/key/key_ops", json!(["encrypt", ["decrypt"]])),
    ] {
        assert_malformed(&body(&with(pointer, wrong)));
    }
}

#[test]
fn accepts_mxc_uri_verbatim_or_rejects_it() {
    for uri in [
        "MXC://example.org/abc",
        "mxc:example.org/abc",
        "mxc:///example.org/abc",
        "mxc://example.org//abc",
        "mxc://example.org/abc/",
        "mxc://example.org/abc#x",
        "mxc://example.org/abc?x",
        "mxc://example.org/./abc",
        "mxc://example.org/x/../abc",
        "mxc://example.org/%61bc",
        "mxc://%65xample.org/abc",
        "mxc://user@example.org/abc",
        "mxc://example.org./abc",
        "mxc://example.org\\abc",
        "mxc://ex\u{e4}mple.org/abc",
        " mxc://example.org/abc",
        "mxc://example.org/abc\n",
        "mxc://example.org/ab\tc",
    ] {
        assert_malformed(&body(&with("/url", json!(uri))));
    }
    // No normalization of case, default port or leading zeros: a different name identifies different media.
    for uri in ["mxc://EXAMPLE.org/abc", "mxc://example.org:08448/abc"] {
        let parsed = parse_file(&with("/url", json!(uri))).unwrap();
        assert_eq!(parsed.media.to_string(), uri);
    }
}

//! Parses the body of a POST request: an `EncryptedFile` (Matrix specification, client-server API, "Sending encrypted
//! attachments"), in plaintext or encrypted for the server's key.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;
use zeroize::{Zeroize, Zeroizing};

use super::request_error::RequestError;
use crate::{
    keys::OpenError,
    lenient_base64,
    media::{MediaId, decrypt::Decryption},
};

/// Encrypted media that a client requests.
#[derive(Debug)]
pub(super) struct EncryptedMedia {
    pub(super) media: MediaId,
    pub(super) decryption: Arc<Decryption>,
}

/// Parses a body. `open` decrypts an `encrypted_body` from ciphertext, MAC and ephemeral key.
pub(super) fn parse(
    body: &[u8],
    open: impl FnOnce(&str, &str, &str) -> Result<Zeroizing<Vec<u8>>, OpenError>,
) -> Result<EncryptedMedia, RequestError> {
    let text = str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
    let Object(RequestBody { file, encrypted_body }) = json(text)?;
    match (encrypted_body, file) {
        (Some(sealed), _) => {
            let opened = decrypt_body(sealed, open)?;
            let text = str::from_utf8(&opened)
                .map_err(|_| RequestError::BadDecryption { what: "what it holds is not UTF-8" })?;
            let Object(DecryptedBody { file }) = json(text)?;
            file.into_media()
        }
        (None, Some(file)) => json::<EncryptedFile>(file.get())?.into_media(),
        (None, None) => Err(malformed("it has neither file nor encrypted_body")),
    }
}

fn decrypt_body(
    sealed: &RawValue,
    open: impl FnOnce(&str, &str, &str) -> Result<Zeroizing<Vec<u8>>, OpenError>,
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    if !sealed.get().starts_with('{') {
        return Err(malformed("encrypted_body is not an object"));
    }
    let Object(EncryptedBody { ciphertext, mac, ephemeral }) =
        serde_json::from_str(sealed.get()).map_err(|_| RequestError::BadDecryption {
            what: "ciphertext, mac or ephemeral is missing or not a string",
        })?;
    open(&ciphertext, &mac, &ephemeral).map_err(RequestError::DecryptionFailed)
}

/// Parses JSON. The messages of serde are dropped, since they quote the input, which contains keys.
fn json<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, RequestError> {
    serde_json::from_str(text).map_err(|error| RequestError::MalformedJson {
        what: match error.classify() {
            serde_json::error::Category::Data => "a field is missing or has a wrong type or value",
            _ => "it is not JSON",
        },
    })
}

fn malformed(what: &'static str) -> RequestError {
    RequestError::MalformedJson { what }
}

/// Body as received. The two parts stay unparsed, so that errors in an unused part are ignored.
#[derive(Deserialize)]
struct RequestBody<'a> {
    #[serde(borrow, default)]
    file: Option<&'a RawValue>,
    #[serde(borrow, default)]
    encrypted_body: Option<&'a RawValue>,
}

/// Plaintext of an `encrypted_body`.
#[derive(Deserialize)]
struct DecryptedBody<'a> {
    #[serde(borrow)]
    file: EncryptedFile<'a>,
}

#[derive(Deserialize)]
struct EncryptedBody<'a> {
    #[serde(borrow)]
    ciphertext: Cow<'a, str>,
    #[serde(borrow)]
    mac: Cow<'a, str>,
    #[serde(borrow)]
    ephemeral: Cow<'a, str>,
}

type EncryptedFile<'a> = Object<FileFields<'a>>;

#[derive(Deserialize)]
struct FileFields<'a> {
    #[serde(borrow)]
    v: Cow<'a, str>,
    #[serde(borrow)]
    key: Object<JsonWebKey<'a>>,
    #[serde(borrow)]
    iv: Cow<'a, str>,
    #[serde(borrow)]
    hashes: Object<Hashes<'a>>,
    #[serde(borrow)]
    url: Cow<'a, str>,
}

#[derive(Deserialize)]
struct JsonWebKey<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow)]
    alg: Cow<'a, str>,
    ext: bool,
    #[serde(borrow)]
    key_ops: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    k: Secret<'a>,
}

#[derive(Deserialize)]
struct Hashes<'a> {
    #[serde(borrow)]
    sha256: Cow<'a, str>,
}

impl EncryptedFile<'_> {
    /// Validates the form first, then the media ID, then the key, so that errors that another key cannot fix are
    /// reported first.
    fn into_media(self) -> Result<EncryptedMedia, RequestError> {
        let FileFields { v, key: Object(key), iv, hashes: Object(hashes), url } = self.0;
        let has = |operation: &str| key.key_ops.iter().any(|found| found == operation);
        if v != "v2" {
            return Err(malformed("v is not v2"));
        }
        if key.kty != "oct" || key.alg != "A256CTR" || !key.ext {
            return Err(malformed("the key is not an extractable A256CTR key"));
        }
        if !has("encrypt") || !has("decrypt") {
            return Err(malformed("key_ops lacks encrypt or decrypt"));
        }
        let media = MediaId::from_mxc(&url).map_err(|_| malformed("url is not mxc://SERVER/ID"))?;
        let invalid = |field| RequestError::InvalidKeyField { field };
        let k = Zeroizing::new(bytes::<32>(&key.k.0).ok_or(invalid("k"))?);
        let iv = bytes::<16>(&iv).ok_or(invalid("iv"))?;
        let sha256 = bytes::<32>(&hashes.sha256).ok_or(invalid("sha256"))?;
        Ok(EncryptedMedia { media, decryption: Arc::new(Decryption::new(*k, iv, sha256)) })
    }
}

/// Decodes exactly `N` bytes of base64.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let decoded = Zeroizing::new(lenient_base64::decode(text).ok()?);
    decoded.as_slice().try_into().ok()
}

/// String that is zeroized if it was copied out of the body because of escapes.
#[derive(Deserialize)]
struct Secret<'a>(#[serde(borrow)] Cow<'a, str>);

impl Drop for Secret<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

/// JSON object. Rejects arrays, which serde's derive accepts as a struct's fields in order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapOnly<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for MapOnly<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(MapOnly(std::marker::PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod interpretation_tests;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const K: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    pub(super) fn file() -> Value {
        json!({
            "v": "v2",
            "key": {
                "kty": "oct", "alg": "A256CTR", "ext": true,
                "key_ops": ["encrypt", "decrypt"], "k": K,
            },
            "iv": "AAECAwQFBgcAAAAAAAAAAA",
            "hashes": { "sha256": "//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA" },
            "url": "mxc://example.org/abc",
        })
    }

    pub(super) fn no_decryption(
        _: &str,
        _: &str,
        _: &str,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        panic!("unexpected encrypted body")
    }

    pub(super) fn parse_file(file: &Value) -> Result<EncryptedMedia, RequestError> {
        parse(json!({ "file": file }).to_string().as_bytes(), no_decryption)
    }

    pub(super) fn with(pointer: &str, value: Value) -> Value {
        let mut file = file();
        *file.pointer_mut(pointer).unwrap() = value;
        file
    }

    pub(super) fn is_malformed<T>(outcome: &Result<T, RequestError>) -> bool {
        matches!(outcome, Err(RequestError::MalformedJson { .. }))
    }

    #[test]
    fn accepts_file_with_unknown_fields() {
        let mut file = file();
        file["mimetype"] = json!({ "any": ["thing"] });
        file["key"]["use"] = json!(null);
        file["hashes"]["md5"] = json!(7);
        let parsed = parse_file(&file).unwrap();
        assert_eq!(parsed.media.to_string(), "mxc://example.org/abc");
        let sha256: [u8; 32] = std::array::from_fn(|i| 0xff - u8::try_from(i).unwrap());
        assert_eq!(parsed.decryption.ciphertext_hash(), &sha256);
        let k = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let iv = [0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(*parsed.decryption == Decryption::new(k, iv, sha256));
        assert!(!format!("{parsed:?}").contains(K));
    }

    #[test]
    fn accepts_both_base64_alphabets_and_paddings() {
        let plain = parse_file(&file()).unwrap();
        for sha256 in [
            "//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=",
            "__79_Pv6-fj39vX08_Lx8O_u7ezr6uno5-bl5OPi4eA",
            "__79_Pv6-fj39vX08_Lx8O_u7ezr6uno5-bl5OPi4eA=",
        ] {
            let other = parse_file(&with("/hashes/sha256", json!(sha256))).unwrap();
            assert!(*other.decryption == *plain.decryption, "{sha256}");
        }
    }

    #[test]
    fn rejects_missing_and_mistyped_fields() {
        for pointer in
            ["/v", "/key", "/key/kty", "/key/alg", "/key/ext", "/key/key_ops", "/key/k", "/iv"]
                .into_iter()
                .chain(["/hashes", "/hashes/sha256", "/url"])
        {
            for wrong in [json!(null), json!(1), json!([]), json!({}), json!(false), json!(["x"])] {
                let outcome = parse_file(&with(pointer, wrong.clone()));
                assert!(is_malformed(&outcome), "{pointer} {wrong}");
            }
            let mut lacking = file();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            lacking.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
            assert!(is_malformed(&parse_file(&lacking)), "{pointer}");
        }
        for (pointer, wrong) in [
            ("/v", json!("v1")),
            ("/key/kty", json!("RSA")),
            ("/key/alg", json!("A128CTR")),
            ("/key/key_ops", json!(["decrypt"])),
            ("/key/key_ops", json!(["encrypt", "decrypt", 7])),
            ("/url", json!("https://example.org/abc")),
            ("/url", json!("mxc://example.org/..")),
            ("/url", json!("mxc://example.org/a/b")),
        ] {
            assert!(is_malformed(&parse_file(&with(pointer, wrong.clone()))), "{pointer} {wrong}");
        }
    }

    #[test]
    fn rejects_arrays_as_objects() {
        let file = file();
        let fields = |names: &[&str], of: &Value| -> Value {
            names.iter().map(|name| of[*name].clone()).collect()
        };
        let key = fields(&["kty", "alg", "ext", "key_ops", "k"], &file["key"]);
        let listed = fields(&["v", "key", "iv", "hashes", "url"], &file);
        assert!(is_malformed(&parse_file(&with("/key", key))));
        assert!(is_malformed(&parse_file(&with("/hashes", json!([file["hashes"]["sha256"]])))));
        assert!(is_malformed(&parse_file(&listed)));
        assert!(is_malformed(&parse(json!([file, null]).to_string().as_bytes(), no_decryption)));
        let sealed = json!({ "encrypted_body": ["c", "m", "e"] }).to_string();
        assert!(is_malformed(&parse(sealed.as_bytes(), no_decryption)));
    }

    #[test]
    fn invalid_key_iv_or_hash_has_its_own_error() {
        for pointer in ["/key/k", "/iv", "/hashes/sha256"] {
            for wrong in ["", "!", "AAAA", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIj"] {
                let outcome = parse_file(&with(pointer, json!(wrong)));
                assert!(
                    matches!(outcome, Err(RequestError::InvalidKeyField { .. })),
                    "{pointer} {wrong}"
                );
            }
        }
        let both = {
            let mut file = with("/iv", json!("!"));
            file["url"] = json!("mxc://..//x");
            file
        };
        assert!(is_malformed(&parse_file(&both)), "form comes before keys");
    }

    #[test]
    fn rejects_invalid_json() {
        let deep = format!(r#"{{"file":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
        let twice = r#"{"file":{},"file":{}}"#;
        for body in ["", "{", "null", "7", "\"\"", "[]", "{} x", "\u{feff}{}", &deep, twice] {
            assert!(is_malformed(&parse(body.as_bytes(), no_decryption)), "{body:.40}");
        }
        assert!(is_malformed(&parse(b"{\"file\": \"\xff\"}", no_decryption)));
    }

    fn sealed(file: &Value) -> String {
        let sealed = json!({ "ciphertext": "c", "mac": "m", "ephemeral": "e" });
        json!({ "encrypted_body": sealed, "file": file }).to_string()
    }

    #[test]
    fn encrypted_body_takes_precedence_over_file() {
        let opened = parse(sealed(&json!([1])).as_bytes(), |ciphertext, mac, ephemeral| {
            assert_eq!((ciphertext, mac, ephemeral), ("c", "m", "e"));
            Ok(Zeroizing::new(json!({ "file": file() }).to_string().into_bytes()))
        });
        assert!(*opened.unwrap().decryption == *parse_file(&file()).unwrap().decryption);
        let null = json!({ "encrypted_body": null, "file": file() }).to_string();
        assert!(parse(null.as_bytes(), no_decryption).is_ok());
    }

    #[test]
    fn rejects_encrypted_body_that_cannot_be_decrypted() {
        for broken in [json!({}), json!({ "ciphertext": "c", "mac": 1, "ephemeral": "e" })] {
            let body = json!({ "encrypted_body": broken }).to_string();
            let outcome = parse(body.as_bytes(), no_decryption);
            assert!(matches!(outcome, Err(RequestError::BadDecryption { .. })), "{body}");
        }
        let outcome = parse(sealed(&json!(null)).as_bytes(), |_, _, _| Err(OpenError::Mac));
        assert!(matches!(outcome, Err(RequestError::DecryptionFailed(OpenError::Mac))));
        let holds = |bytes: &'static [u8]| {
            parse(sealed(&json!(null)).as_bytes(), move |_, _, _| {
                Ok(Zeroizing::new(bytes.to_vec()))
            })
        };
        assert!(matches!(holds(b"\xff"), Err(RequestError::BadDecryption { .. })));
        assert!(is_malformed(&holds(b"{")));
        assert!(is_malformed(&holds(b"[]")));
        assert!(is_malformed(&holds(b"{}")));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_parsed_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, |_, _, _| Ok(Zeroizing::new(bytes.clone())));
        }

        #[test]
        fn damaged_body_is_parsed_or_rejected(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = json!({ "file": file() }).to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = parse(&bytes, |_, _, _| Err(OpenError::Mac));
        }
    }
}

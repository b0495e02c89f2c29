//! The body of a POST: an `EncryptedFile` of the Matrix specification (client-server API, "Sending
//! encrypted attachments"), in the clear or encrypted for the server's key. Text in, a media's name
//! and its decryption out; knows no HTTP and fetches nothing.

use std::{borrow::Cow, fmt, sync::Arc};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;
use zeroize::{Zeroize, Zeroizing};

use super::request::RequestError;
use crate::media::{MediaId, decrypt::Decryption};

/// What a client wants to know about.
#[derive(Debug)]
pub(super) struct EncryptedMedia {
    pub(super) media: MediaId,
    pub(super) decryption: Arc<Decryption>,
}

/// Parses a body. `open` decrypts an `encrypted_body` from ciphertext, mac and ephemeral key, or
/// gives none where it cannot.
pub(super) fn parse(
    body: &[u8],
    open: impl FnOnce(&str, &str, &str) -> Option<Zeroizing<Vec<u8>>>,
) -> Result<EncryptedMedia, RequestError> {
    let text = str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
    let Object(Outer { file, encrypted_body }) = json(text)?;
    match (encrypted_body, file) {
        (Some(sealed), _) => {
            let opened = unseal(sealed, open)?;
            // The client sealed with a key that is not ours, or is not Unicode-minded: either way
            // it should fetch the key anew.
            let text = str::from_utf8(&opened).map_err(|_| RequestError::BadDecryption)?;
            let Object(Inner { file }) = json(text)?;
            file.into_media()
        }
        (None, Some(file)) => json::<EncryptedFile>(file.get())?.into_media(),
        (None, None) => Err(malformed("it has neither file nor encrypted_body")),
    }
}

fn unseal(
    sealed: &RawValue,
    open: impl FnOnce(&str, &str, &str) -> Option<Zeroizing<Vec<u8>>>,
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    if !sealed.get().starts_with('{') {
        return Err(malformed("encrypted_body is not an object"));
    }
    let Object(Sealed { ciphertext, mac, ephemeral }) =
        serde_json::from_str(sealed.get()).map_err(|_| RequestError::BadDecryption)?;
    open(&ciphertext, &mac, &ephemeral).ok_or(RequestError::BadDecryption)
}

/// serde's messages quote what they found: they would carry keys into the log.
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

/// The body as it comes. What is not used is not judged: each half is parsed when its turn comes.
#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow, default)]
    file: Option<&'a RawValue>,
    #[serde(borrow, default)]
    encrypted_body: Option<&'a RawValue>,
}

/// What an `encrypted_body` holds.
#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow)]
    file: EncryptedFile<'a>,
}

#[derive(Deserialize)]
struct Sealed<'a> {
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
    /// Form first, then the name, then the key: what no client can mend by another key is said
    /// before what one can.
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
        let media = MediaId::from_mxc(&url).map_err(|_| malformed("url cannot be a media's"))?;
        let undecodable = |field| RequestError::Undecodable { field };
        let k = Zeroizing::new(bytes::<32>(&key.k.0).ok_or(undecodable("k"))?);
        let iv = bytes::<16>(&iv).ok_or(undecodable("iv"))?;
        let sha256 = bytes::<32>(&hashes.sha256).ok_or(undecodable("sha256"))?;
        Ok(EncryptedMedia { media, decryption: Arc::new(Decryption::new(*k, iv, sha256)) })
    }
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Exactly `N` bytes from base64 of either alphabet, padded or not.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let decoded = Zeroizing::new(engine.decode(text).ok()?);
    decoded.as_slice().try_into().ok()
}

/// A string that is wiped where it had to be copied out of the body (for its escapes).
#[derive(Deserialize)]
struct Secret<'a>(#[serde(borrow)] Cow<'a, str>);

impl Drop for Secret<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

/// A JSON object, and never an array, which serde's derive would take for a struct's fields in
/// order.
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

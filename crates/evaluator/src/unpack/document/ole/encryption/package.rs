//! Encrypted packages: documents in the formats of Office 2007 and later, [MS-OFFCRYPTO] 2.3.4.

use std::io::{self, Read};

use super::algorithms::{AES_BLOCK, AesDecryptor, HashAlgorithm};
use crate::unpack::{content::StreamContent, document::text::Base64Content, fields::FieldReader};

/// Maximum size of the description of the encryption that is read, bytes. Office writes 2 KiB.
pub(super) const MAX_INFO: usize = 16 << 10;

/// Number of rounds of the older method, [MS-OFFCRYPTO] 2.3.4.7.
const STANDARD_ROUNDS: u32 = 50_000;

/// Maximum number of rounds of the newer method. Office writes 100 000.
const MAX_ROUNDS: u32 = 100_000;

/// Size of a segment of the package, bytes. Each has its own initialization vector.
const SEGMENT: usize = 4096;

/// The key of a package.
pub(super) struct PackageKey {
    aes: AesDecryptor,
    /// Hash and salt for the initialization vectors; `None` if blocks are not chained.
    vectors: Option<(HashAlgorithm, Vec<u8>)>,
}

impl PackageKey {
    /// Derives the key from the stream `EncryptionInfo`. `None` if the password of Excel is not the right one, or if the
    /// method is unknown.
    pub(super) fn derive(info: &[u8]) -> Option<Self> {
        let mut fields = FieldReader::new(info);
        match (fields.u16()?, fields.u16()?) {
            (2..=4, 2) => {
                fields.u32()?;
                standard(fields)
            }
            (4, 4) => {
                fields.u32()?;
                agile(&String::from_utf8_lossy(fields.rest()))
            }
            _ => None,
        }
    }

    fn decrypt(&self, number: u32, bytes: &mut Vec<u8>) {
        let vector =
            self.vectors.as_ref().map(|(hash, salt)| hash.hash(&[salt, &number.to_le_bytes()]));
        self.aes.decrypt(bytes, vector.as_deref());
    }
}

/// Derives the key of the older method: AES without chaining.
fn standard(mut fields: FieldReader<'_>) -> Option<PackageKey> {
    const SHA1: HashAlgorithm = HashAlgorithm::Sha1;
    let header_size = fields.length()?;
    let mut header = FieldReader::new(fields.bytes(header_size)?);
    // Flags and reserved.
    header.bytes(8)?;
    let key_length = match header.u32()? {
        0x660e => 16,
        0x660f => 24,
        0x6610 => 32,
        _ => return None,
    };
    let salt_length = fields.length()?;
    let salt = fields.bytes(salt_length)?;
    let mut verifier = fields.bytes(16)?.to_vec();
    fields.u32()?;
    let mut verifier_hash = fields.bytes(32)?.to_vec();

    let hash = SHA1.hash(&[&SHA1.password_hash(salt, STANDARD_ROUNDS), &[0; 4]]);
    let half = |fill: u8| {
        let mut block = [fill; 64];
        block.iter_mut().zip(&hash).for_each(|(byte, hash)| *byte ^= hash);
        SHA1.hash(&[&block])
    };
    let key = [half(0x36), half(0x5c)].concat();
    let aes = AesDecryptor::new(key.get(..key_length)?)?;
    aes.decrypt(&mut verifier, None);
    aes.decrypt(&mut verifier_hash, None);
    let fits = verifier_hash.starts_with(&SHA1.hash(&[&verifier]));
    fits.then_some(PackageKey { aes, vectors: None })
}

/// Derives the key of the newer method, whose parameters are XML.
fn agile(xml: &str) -> Option<PackageKey> {
    /// Purposes of keys, [MS-OFFCRYPTO] 2.3.4.13.
    const VERIFIER: &[u8] = b"\xfe\xa7\xd2\x76\x3b\x4b\x9e\x79";
    const VERIFIER_HASH: &[u8] = b"\xd7\xaa\x0f\x6d\x30\x61\x34\x4e";
    const KEY: &[u8] = b"\x14\x6e\x0b\xe7\xab\xac\xd0\xd6";
    let data = AgileParameters::parse(xml, "keyData")?;
    let password = AgileParameters::parse(xml, "encryptedKey")?;
    let rounds = password.text("spinCount")?.parse().ok().filter(|rounds| *rounds <= MAX_ROUNDS)?;
    let (hash, salt) = (password.hash()?, password.bytes("saltValue")?);
    let password_hash = hash.password_hash(&salt, rounds);
    let decrypt = |name, purpose| {
        let mut key = hash.hash(&[&password_hash, purpose]);
        key.resize(password.key_length()?, 0x36);
        let mut value = password.bytes(name)?;
        AesDecryptor::new(&key)?.decrypt(&mut value, Some(&padded(salt.clone())));
        Some(value)
    };
    let verifier = decrypt("encryptedVerifierHashInput", VERIFIER)?;
    let expected = decrypt("encryptedVerifierHashValue", VERIFIER_HASH)?;
    if !expected.starts_with(&hash.hash(&[verifier.get(..salt.len()).unwrap_or(&verifier)])) {
        return None;
    }
    let key = decrypt("encryptedKeyValue", KEY)?;
    let aes = AesDecryptor::new(key.get(..data.key_length()?)?)?;
    Some(PackageKey { aes, vectors: Some((data.hash()?, data.bytes("saltValue")?)) })
}

/// Returns an initialization vector of the size of a block.
fn padded(mut salt: Vec<u8>) -> Vec<u8> {
    salt.resize(AES_BLOCK, 0x36);
    salt
}

/// The attributes of an element.
struct AgileParameters<'a>(&'a str);

impl<'a> AgileParameters<'a> {
    /// Returns the attributes of the first element with a name, in any name space.
    fn parse(xml: &'a str, element: &str) -> Option<Self> {
        let tags = xml.split('<').skip(1).filter_map(|tag| tag.split_once('>'));
        let attributes = tags.filter_map(|(tag, _)| {
            let (name, attributes) = tag.split_once(|byte: char| byte.is_ascii_whitespace())?;
            (name.rsplit(':').next() == Some(element)).then_some(attributes)
        });
        // Other ciphers and modes are not known to exist.
        let parameters = attributes.map(Self).next()?;
        let is_usual = parameters.text("cipherAlgorithm") == Some("AES")
            && parameters.text("cipherChaining") == Some("ChainingModeCBC");
        is_usual.then_some(parameters)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        let values = self.0.split_ascii_whitespace();
        let mut values = values.filter_map(|attribute| attribute.split_once('='));
        let (_, value) = values.find(|(other, _)| *other == name)?;
        Some(value.trim_end_matches('/').trim_matches(['"', '\'']))
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        Base64Content::new(self.text(name)?.as_bytes()).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Returns the length of the key, bytes.
    fn key_length(&self) -> Option<usize> {
        let bits: usize = self.text("keyBits")?.parse().ok()?;
        Some(bits / 8)
    }

    fn hash(&self) -> Option<HashAlgorithm> {
        match self.text("hashAlgorithm")? {
            "SHA1" | "SHA-1" => Some(HashAlgorithm::Sha1),
            "SHA256" => Some(HashAlgorithm::Sha256),
            "SHA384" => Some(HashAlgorithm::Sha384),
            "SHA512" => Some(HashAlgorithm::Sha512),
            _ => None,
        }
    }
}

/// Reads the content of the stream `EncryptedPackage`: its size, then segments.
pub(super) struct PackageReader<'c, 'a> {
    content: &'c StreamContent<'a>,
    key: PackageKey,
    /// Number of the next segment.
    next: u32,
    /// Number of bytes of the package that are not returned yet.
    remaining: usize,
    /// The decrypted segment, and the position of the next byte in it.
    segment: Vec<u8>,
    position: usize,
}

impl<'c, 'a> PackageReader<'c, 'a> {
    pub(super) fn new(content: &'c StreamContent<'a>, key: PackageKey) -> Self {
        let size = FieldReader::new(&content.copy(0, 8)).u64().unwrap_or_default();
        let remaining = usize::try_from(size).unwrap_or(usize::MAX);
        Self { content, key, next: 0, remaining, segment: Vec::new(), position: 0 }
    }

    fn read_segment(&mut self) {
        let start = (self.next as usize).saturating_mul(SEGMENT).saturating_add(8);
        self.segment = self.content.copy(start, SEGMENT);
        self.key.decrypt(self.next, &mut self.segment);
        self.next = self.next.saturating_add(1);
        self.position = 0;
    }
}

impl Read for PackageReader<'_, '_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if self.remaining == 0 || output.is_empty() {
            return Ok(0);
        }
        if self.position >= self.segment.len() {
            self.read_segment();
        }
        let segment = self.segment.get(self.position..).unwrap_or_default();
        let length = segment.len().min(self.remaining);
        let read = segment.get(..length).unwrap_or_default().read(output)?;
        if read == 0 {
            let reason = "the encrypted document is truncated";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        }
        self.position += read;
        self.remaining -= read;
        Ok(read)
    }
}

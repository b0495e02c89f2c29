//! Encrypted workbooks of Excel before 2007, [MS-XLS] 2.2.10. The method of Excel 95 (XOR) is not decrypted.

use std::io::{self, Read};

use super::algorithms::{HashAlgorithm, PASSWORD, Rc4};
use crate::unpack::{content::StreamContent, fields::FieldReader};

/// Size of the blocks that have a key of their own, bytes.
const BLOCK: usize = 1024;

/// Length of the header of a record: its type and its length, bytes.
const HEADER: usize = 4;

/// Records that are not encrypted: beginnings of files, this record, fields for shared workbooks, interface.
const PLAIN_RECORDS: [u16; 8] = [0x09, 0x809, 0x2f, 0xe1, 0x138, 0x194, 0x195, 0x196];

/// Sheet. The first four bytes, its position, are not encrypted.
const BOUND_SHEET: u16 = 0x85;

/// The key of a workbook.
pub(super) enum WorkbookKey {
    /// The first bytes of a hash of the password and the salt, [MS-OFFCRYPTO] 2.3.6.
    Rc4(Vec<u8>),
    /// A hash of the password and the salt, and the length of the keys in bytes, [MS-OFFCRYPTO] 2.3.5.
    CryptoApi(Vec<u8>, usize),
}

impl WorkbookKey {
    /// Derives the key from the content of the record `FilePass`. `None` if the password of Excel is not the right one,
    /// or if the method is unknown.
    pub(super) fn derive(record: &[u8]) -> Option<Self> {
        const RC4: u16 = 1;
        let mut fields = FieldReader::new(record);
        if fields.u16()? != RC4 {
            return None;
        }
        match (fields.u16()?, fields.u16()?) {
            (1, 1) => Self::rc4(fields),
            (2..=4, 2) => Self::crypto_api(fields),
            _ => None,
        }
    }

    fn rc4(mut fields: FieldReader<'_>) -> Option<Self> {
        const MD5: HashAlgorithm = HashAlgorithm::Md5;
        let (salt, verifier, hash) = (fields.bytes(16)?, fields.bytes(16)?, fields.bytes(16)?);
        let password = MD5.hash(&[PASSWORD]);
        let intermediate = [password.get(..5)?, salt].concat().repeat(16);
        let key = Self::Rc4(MD5.hash(&[&intermediate]).get(..5)?.to_vec());
        key.fits(MD5, verifier, hash).then_some(key)
    }

    fn crypto_api(mut fields: FieldReader<'_>) -> Option<Self> {
        const SHA1: HashAlgorithm = HashAlgorithm::Sha1;
        const RC4: u32 = 0x6801;
        fields.u32()?;
        let header_size = fields.length()?;
        let mut header = FieldReader::new(fields.bytes(header_size)?);
        header.bytes(8)?;
        let (algorithm, _hash, bits) = (header.u32()?, header.u32()?, header.length()?);
        let salt_length = fields.length()?;
        let (salt, verifier) = (fields.bytes(salt_length)?, fields.bytes(16)?);
        let hash_length = fields.length()?;
        let hash = fields.bytes(hash_length)?;
        let bits = if bits == 0 { 40 } else { bits };
        if algorithm != RC4 || hash_length == 0 {
            return None;
        }
        let key = Self::CryptoApi(SHA1.hash(&[salt, PASSWORD]), bits / 8);
        key.fits(SHA1, verifier, hash).then_some(key)
    }

    fn fits(&self, algorithm: HashAlgorithm, verifier: &[u8], hash: &[u8]) -> bool {
        let Some(mut stream) = self.key_stream(0) else { return false };
        let (verifier, hash) = (stream.decrypt(verifier), stream.decrypt(hash));
        algorithm.hash(&[&verifier]) == hash
    }

    /// Returns the key stream of a block; `None` if the key has an invalid length.
    fn key_stream(&self, block: u32) -> Option<Rc4> {
        let number = block.to_le_bytes();
        match self {
            Self::Rc4(hash) => Some(Rc4::new(&HashAlgorithm::Md5.hash(&[hash, &number]))),
            Self::CryptoApi(hash, length) => {
                let hash = HashAlgorithm::Sha1.hash(&[hash, &number]);
                let mut key = hash.get(..*length).filter(|key| !key.is_empty())?.to_vec();
                // Keys of 40 bits have zeros at the end.
                if *length == 5 {
                    key.resize(16, 0);
                }
                Some(Rc4::new(&key))
            }
        }
    }
}

/// Reads a workbook, in which the contents of most records are encrypted.
pub(super) struct WorkbookReader<'c, 'a> {
    content: &'c StreamContent<'a>,
    key: WorkbookKey,
    /// Number of the next block.
    next: u32,
    block: Vec<u8>,
    /// Position of the next byte in the block.
    position: usize,
    header: [u8; HEADER],
    /// Number of bytes of the header that were read.
    header_length: usize,
    /// Number of bytes of the record's content that follow, and how many of them are not encrypted.
    remaining: usize,
    plain: usize,
}

impl<'c, 'a> WorkbookReader<'c, 'a> {
    pub(super) fn new(content: &'c StreamContent<'a>, key: WorkbookKey) -> Self {
        Self {
            content,
            key,
            next: 0,
            block: Vec::new(),
            position: 0,
            header: [0; HEADER],
            header_length: 0,
            remaining: 0,
            plain: 0,
        }
    }

    fn read_block(&mut self) {
        let start = (self.next as usize).saturating_mul(BLOCK);
        let mut block = self.content.copy(start, BLOCK);
        if let Some(mut stream) = self.key.key_stream(self.next) {
            for byte in &mut block {
                let key = stream.next_byte();
                if self.is_encrypted(*byte) {
                    *byte ^= key;
                }
            }
        }
        self.block = block;
        self.next = self.next.saturating_add(1);
        self.position = 0;
    }

    /// Returns whether the next byte of the stream is encrypted.
    fn is_encrypted(&mut self, byte: u8) -> bool {
        if self.remaining == 0 {
            if let Some(entry) = self.header.get_mut(self.header_length) {
                *entry = byte;
            }
            self.header_length += 1;
            if self.header_length == HEADER {
                let [kind @ .., low, high] = self.header;
                let kind = u16::from_le_bytes(kind);
                self.header_length = 0;
                self.remaining = u16::from_le_bytes([low, high]).into();
                self.plain = match kind {
                    BOUND_SHEET => 4,
                    _ if PLAIN_RECORDS.contains(&kind) => self.remaining,
                    _ => 0,
                };
            }
            return false;
        }
        self.remaining -= 1;
        let is_plain = self.plain > 0;
        self.plain = self.plain.saturating_sub(1);
        !is_plain
    }
}

impl Read for WorkbookReader<'_, '_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.block.len() {
            self.read_block();
        }
        let read = self.block.get(self.position..).unwrap_or_default().read(output)?;
        self.position += read;
        Ok(read)
    }
}

//! Hashes and ciphers of encrypted Office documents.

use aes::{
    Aes128, Aes192, Aes256,
    cipher::{BlockCipherDecrypt, KeyInit},
};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// The password that Excel tries before it asks for one ([MS-OFFCRYPTO] does not name it), in UTF-16.
pub(super) const PASSWORD: &[u8] = b"V\0e\0l\0v\0e\0t\0S\0w\0e\0a\0t\0s\0h\0o\0p\0";

/// Size of a block of AES, bytes.
pub(super) const AES_BLOCK: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HashAlgorithm {
    Md5,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl HashAlgorithm {
    /// Returns the hash of parts one after another.
    pub(super) fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Md5 => {
                let mut hash = <md5::Md5 as md5::Digest>::new();
                for part in parts {
                    md5::Digest::update(&mut hash, part);
                }
                md5::Digest::finalize(hash).to_vec()
            }
            Self::Sha1 => {
                let mut hash = <sha1::Sha1 as sha1::Digest>::new();
                for part in parts {
                    sha1::Digest::update(&mut hash, part);
                }
                sha1::Digest::finalize(hash).to_vec()
            }
            Self::Sha256 => sha2::<Sha256>(parts),
            Self::Sha384 => sha2::<Sha384>(parts),
            Self::Sha512 => sha2::<Sha512>(parts),
        }
    }

    /// Returns the hash of the salt and the password, hashed again in a number of rounds.
    pub(super) fn password_hash(self, salt: &[u8], rounds: u32) -> Vec<u8> {
        (0..rounds).fold(self.hash(&[salt, PASSWORD]), |hash, round| {
            self.hash(&[&round.to_le_bytes(), &hash])
        })
    }
}

fn sha2<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = D::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// Decryption with AES.
pub(super) enum AesDecryptor {
    Aes128(Box<Aes128>),
    Aes192(Box<Aes192>),
    Aes256(Box<Aes256>),
}

impl AesDecryptor {
    /// Returns `None` if the key has an invalid length.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => Some(Self::Aes128(Box::new(Aes128::new_from_slice(key).ok()?))),
            24 => Some(Self::Aes192(Box::new(Aes192::new_from_slice(key).ok()?))),
            32 => Some(Self::Aes256(Box::new(Aes256::new_from_slice(key).ok()?))),
            _ => None,
        }
    }

    /// Decrypts blocks, chained (CBC) if there is an initialization vector. An incomplete block at the end is removed.
    pub(super) fn decrypt(&self, bytes: &mut Vec<u8>, vector: Option<&[u8]>) {
        bytes.truncate(bytes.len() / AES_BLOCK * AES_BLOCK);
        let mut previous = vector.and_then(|vector| vector.first_chunk().copied());
        let (blocks, _) = bytes.as_chunks_mut::<AES_BLOCK>();
        for block in blocks {
            let encrypted = *block;
            match self {
                Self::Aes128(aes) => aes.decrypt_block(block.into()),
                Self::Aes192(aes) => aes.decrypt_block(block.into()),
                Self::Aes256(aes) => aes.decrypt_block(block.into()),
            }
            if let Some(previous) = &mut previous {
                block.iter_mut().zip(*previous).for_each(|(byte, other)| *byte ^= other);
                *previous = encrypted;
            }
        }
    }
}

/// The key stream of RC4.
pub(super) struct Rc4 {
    state: [u8; 256],
    i: u8,
    j: u8,
}

impl Rc4 {
    /// Creates the key stream for a key, which is not empty.
    pub(super) fn new(key: &[u8]) -> Self {
        let mut rc4 = Self {
            state: std::array::from_fn(|index| u8::try_from(index).unwrap_or_default()),
            i: 0,
            j: 0,
        };
        for (index, byte) in (0..=255).zip(key.iter().cycle()) {
            rc4.j = rc4.j.wrapping_add(rc4.at(index)).wrapping_add(*byte);
            rc4.state.swap(index.into(), rc4.j.into());
        }
        rc4.j = 0;
        rc4
    }

    fn at(&self, index: u8) -> u8 {
        self.state.get(usize::from(index)).copied().unwrap_or_default()
    }

    pub(super) fn next_byte(&mut self) -> u8 {
        self.i = self.i.wrapping_add(1);
        self.j = self.j.wrapping_add(self.at(self.i));
        self.state.swap(self.i.into(), self.j.into());
        self.at(self.at(self.i).wrapping_add(self.at(self.j)))
    }

    pub(super) fn decrypt(&mut self, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().map(|byte| byte ^ self.next_byte()).collect()
    }
}

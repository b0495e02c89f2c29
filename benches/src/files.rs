//! Files with distinct, incompressible, pseudo-random content. As ciphertexts they can be decrypted with any key.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use matrix_content_scanner::media::decrypt::Decryption;
use sha2::{Digest, Sha256};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

const IV: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];

/// Encrypts in place with a key derived from `seed`.
pub(crate) fn encrypt(bytes: &mut [u8], seed: u8) {
    Decryption::new([seed; 32], IV, [0; 32]).cipher().apply(bytes);
}

/// A file on the homeserver.
#[derive(Clone)]
pub(crate) struct MediaFile {
    pub(crate) name: String,
    sha256: [u8; 32],
}

impl MediaFile {
    /// Returns server name and media ID. Spreads the files over 32 server names.
    pub(crate) fn mxc_path(&self) -> String {
        format!("s{}.example/{}", seed(&self.name) % 32, self.name)
    }

    /// Modifies the file's content.
    pub(crate) fn modify(&mut self, directory: &Path, change: impl FnOnce(&mut [u8])) {
        let path = directory.join(&self.name);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        self.sha256 = Sha256::digest(&bytes).into();
    }

    /// Returns the request body for this file as encrypted media, with a key derived from `seed`.
    pub(crate) fn encrypted_body(&self, seed: u8) -> String {
        serde_json::json!({ "file": {
            "v": "v2",
            "url": format!("mxc://{}", self.mxc_path()),
            "key": {
                "kty": "oct", "alg": "A256CTR", "ext": true, "key_ops": ["encrypt", "decrypt"],
                "k": URL_SAFE_NO_PAD.encode([seed; 32]),
            },
            "iv": STANDARD_NO_PAD.encode(IV),
            "hashes": { "sha256": STANDARD_NO_PAD.encode(self.sha256) },
        }})
        .to_string()
    }
}

/// Writes `count` files of `size` bytes, readable for all users.
pub(crate) async fn write(directory: &Path, prefix: &str, count: u64, size: u64) -> Vec<MediaFile> {
    let mut written = Vec::new();
    for number in 0..count {
        written.push(write_one(directory, format!("{prefix}-{number}"), size));
        // Writing takes a while. Yields so that an interrupt is handled.
        tokio::task::yield_now().await;
    }
    written
}

fn write_one(directory: &Path, name: String, size: u64) -> MediaFile {
    let path = directory.join(&name);
    let mut file = File::create(&path).unwrap();
    let mut hash = Sha256::new();
    let mut state = seed(&name);
    let mut chunk = vec![0; 64 * 1024];
    let mut remaining = size;
    while remaining > 0 {
        for word in chunk.chunks_exact_mut(8) {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let length = remaining.min(chunk.len() as u64);
        let part = &chunk[..usize::try_from(length).unwrap()];
        file.write_all(part).unwrap();
        hash.update(part);
        remaining -= length;
    }
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    MediaFile { name, sha256: hash.finalize().into() }
}

/// Returns a seed derived from the name (FNV-1a).
fn seed(name: &str) -> u64 {
    name.bytes().fold(0x9e37_79b9_7f4a_7c15, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

//! Decrypting, finding a type and parsing by themselves: `cargo bench -p mcs-benches --bench micro`, and with a word after `--` what has it
//! in its name. Each is beside what it is made of in the same run: ciphers and hashes alone over the same bytes.
//!
//! What answers of engines, bodies in the clear and dispositions take is not here: their parsers are nobody's outside of
//! their modules.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run is to say so and end")]

fn main() {
    divan::main();
}

/// An encrypted media's way in: both hashes, the cipher, and the file for the script.
#[divan::bench_group]
mod decrypting {
    use std::{hint::black_box, sync::Arc};

    use aes::{
        Aes256,
        cipher::{KeyIvInit, StreamCipher},
    };
    use divan::{Bencher, counter::BytesCount};
    use matrix_content_scanner::media::{
        decrypt::Decryption,
        intake::{Intake, Plan, ScriptFile},
        spool::Spool,
    };
    use sha2::{Digest, Sha256};

    const SIZES: [usize; 3] = [4 << 10, 100 << 10, 16 << 20];
    /// About as they come from a connection.
    const PIECE: usize = 16 << 10;

    fn body(size: usize) -> Vec<u8> {
        (0..size).map(|place| ((place * 131) >> 3).to_le_bytes()[0]).collect()
    }

    fn cipher() -> ctr::Ctr128BE<Aes256> {
        ctr::Ctr128BE::new(&[7; 32].into(), &[9; 16].into())
    }

    /// What `media::intake` does of a whole body, encrypted or not.
    fn taken_in(bencher: Bencher, size: usize, encrypted: bool) {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path().to_owned(), 1 << 30, 1 << 28);
        let body = body(size);
        let hash = Sha256::digest(&body).into();
        let decryption = encrypted.then(|| Arc::new(Decryption::new([7; 32], [9; 16], hash)));
        let begin = || {
            let file = tempfile::tempfile_in(directory.path()).unwrap();
            let plan = Plan {
                account: spool.own_account(),
                max_size: 1 << 28,
                memory_limit: 1 << 20,
                keep_large: false,
                decryption: decryption.clone(),
                script_file: Some(ScriptFile { file, tamper_proof: true }),
            };
            Intake::begin(&spool, plan, Some(size as u64)).unwrap()
        };
        bencher.counter(BytesCount::new(size)).with_inputs(begin).bench_local_values(
            |mut intake| {
                for piece in body.chunks(PIECE) {
                    intake.write(piece).unwrap();
                }
                intake.finish().unwrap()
            },
        );
    }

    #[divan::bench(args = SIZES)]
    fn taken_in_encrypted(bencher: Bencher, size: usize) {
        taken_in(bencher, size, true);
    }

    #[divan::bench(args = SIZES)]
    fn taken_in_plain(bencher: Bencher, size: usize) {
        taken_in(bencher, size, false);
    }

    /// The limit: no file, no copy but the cipher's.
    #[divan::bench(args = SIZES)]
    fn aes_and_two_sha256(bencher: Bencher, size: usize) {
        let body = body(size);
        bencher.counter(BytesCount::new(size)).bench_local(|| {
            let mut cipher = cipher();
            let [mut outer, mut inner] = [Sha256::new(), Sha256::new()];
            let mut buffer = Vec::with_capacity(PIECE);
            for piece in body.chunks(PIECE) {
                outer.update(piece);
                buffer.clear();
                buffer.extend_from_slice(piece);
                cipher.apply_keystream(&mut buffer);
                inner.update(&buffer);
            }
            [outer.finalize(), inner.finalize()]
        });
    }

    #[divan::bench(args = SIZES)]
    fn aes_alone(bencher: Bencher, size: usize) {
        let mut body = body(size);
        bencher.counter(BytesCount::new(size)).bench_local(|| {
            let mut cipher = cipher();
            for piece in body.chunks_mut(PIECE) {
                cipher.apply_keystream(black_box(piece));
            }
        });
    }

    #[divan::bench(args = SIZES)]
    fn sha256_alone(bencher: Bencher, size: usize) {
        let body = body(size);
        bencher.counter(BytesCount::new(size)).bench_local(|| {
            let mut hash = Sha256::new();
            for piece in body.chunks(PIECE) {
                hash.update(black_box(piece));
            }
            hash.finalize()
        });
    }
}

/// What a file is, by its bytes.
#[divan::bench_group]
mod detecting {
    use std::hint::black_box;

    use divan::{Bencher, counter::BytesCount};
    use matrix_content_scanner::scan::filetype::Detector;

    const SIZES: [usize; 4] = [4 << 10, 100 << 10, 1 << 20, 4 << 20];

    fn detected(bencher: Bencher, size: usize, begin: &[u8]) {
        let detector = Detector::new().unwrap();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes: Vec<u8> = (0..size)
            .map(|_| {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[0]
            })
            .collect();
        bytes.splice(..begin.len(), begin.iter().copied());
        bencher
            .counter(BytesCount::new(size))
            .bench_local(|| detector.detect_bytes(black_box(&bytes)));
    }

    /// Like nothing, so that every rule is tried.
    #[divan::bench(args = SIZES, sample_count = 20)]
    fn noise(bencher: Bencher, size: usize) {
        detected(bencher, size, b"");
    }

    #[divan::bench(args = SIZES, sample_count = 20)]
    fn png(bencher: Bencher, size: usize) {
        detected(bencher, size, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0\0\0\x01\0\x08\x06\0\0\0");
    }
}

/// What clients name and send.
#[divan::bench_group]
mod parsing {
    use std::{hint::black_box, time::Duration};

    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
    use divan::Bencher;
    use matrix_content_scanner::{
        keys::{Keyring, RequestKey, Settings},
        media::MediaId,
    };
    use vodozemac::{Curve25519PublicKey, Curve25519SecretKey, pk_encryption::PkEncryption};

    const SERVER: &str = "matrix.example.org:8448";
    const MEDIA: &str = "JwJdProuzbhQGJrYHfuWLBJx";

    #[divan::bench]
    fn media_of_a_path() -> MediaId {
        MediaId::parse(black_box(SERVER), black_box(MEDIA)).unwrap()
    }

    #[divan::bench]
    fn media_of_an_mxc(bencher: Bencher) {
        let mxc = format!("mxc://{SERVER}/{MEDIA}");
        bencher.bench_local(|| MediaId::from_mxc(black_box(&mxc)).unwrap());
    }

    /// Ciphertext, mac and ephemeral key of a body of 600 bytes, as an encrypted file's is, and who opens it.
    fn sealed() -> (Keyring, [String; 3]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let (key, _) = RequestKey::load(&Settings::RequestSecret { path, generate: true }).unwrap();
        let public = Curve25519PublicKey::from_base64(&key.public_key()).unwrap();
        let message = PkEncryption::from_key(public).encrypt(&[b'x'; 600]).unwrap();
        let parts = [message.ciphertext, message.mac, message.ephemeral_key.to_vec()];
        (Keyring::new(key, Duration::ZERO), parts.map(|part| STANDARD_NO_PAD.encode(part)))
    }

    #[divan::bench]
    fn opening_a_sealed_body(bencher: Bencher) {
        let (keys, [ciphertext, mac, ephemeral]) = sealed();
        bencher.bench_local(|| keys.open(black_box(&ciphertext), &mac, &ephemeral).unwrap());
    }

    /// The limit: the agreement on a key, and nothing else.
    #[divan::bench]
    fn curve25519_alone(bencher: Bencher) {
        let secret = Curve25519SecretKey::new();
        let other = Curve25519PublicKey::from(&Curve25519SecretKey::new());
        bencher.bench_local(|| black_box(&secret).diffie_hellman(&other));
    }
}

//! Microbenchmarks of decryption, file type detection and parsing.
//!
//! Run with `cargo bench -p mcs-benches --bench micro`; a word after `--` selects benchmarks by name. Each benchmark is
//! accompanied by its components in the same run, such as ciphers and hashes over the same bytes.
//!
//! Parsers of engine responses, plain request bodies and dispositions are not included, because they are private to
//! their modules.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run must abort")]

fn main() {
    divan::main();
}

/// Ingestion of a body: both hashes, the cipher, and the file for the script.
#[divan::bench_group]
mod decryption {
    use std::{hint::black_box, sync::Arc};

    use aes::{
        Aes256,
        cipher::{KeyIvInit, StreamCipher},
    };
    use divan::{Bencher, counter::BytesCount};
    use matrix_content_scanner::media::{
        decrypt::Decryption,
        ingest::{Ingest, IngestOptions, ScriptFile},
        run_directory::RunDirectory,
        spool::Spool,
    };
    use sha2::{Digest, Sha256};

    const SIZES: [usize; 3] = [4 << 10, 100 << 10, 16 << 20];
    /// Typical size of chunks from a connection, bytes.
    const CHUNK: usize = 16 << 10;

    fn body(size: usize) -> Vec<u8> {
        (0..size).map(|index| ((index * 131) >> 3).to_le_bytes()[0]).collect()
    }

    fn cipher() -> ctr::Ctr128BE<Aes256> {
        ctr::Ctr128BE::new(&[7; 32].into(), &[9; 16].into())
    }

    /// Ingests a complete body with `media::ingest`.
    fn bench_ingest(bencher: Bencher, size: usize, encrypted: bool) {
        let directory = tempfile::tempdir().unwrap();
        let run_directory = RunDirectory::create(directory.path(), false).unwrap();
        let spool = Spool::new(Arc::new(run_directory), 1 << 30, 1 << 28);
        let body = body(size);
        let hash = Sha256::digest(&body).into();
        let decryption = encrypted.then(|| Arc::new(Decryption::new([7; 32], [9; 16], hash)));
        let begin = || {
            let file = tempfile::tempfile_in(directory.path()).unwrap();
            let options = IngestOptions {
                account: spool.unlimited_account(),
                max_size: 1 << 28,
                memory_limit: 1 << 20,
                keep_large: false,
                decryption: decryption.clone(),
                script_file: Some(ScriptFile { file, tamper_proof: true }),
            };
            Ingest::new(&spool, options, Some(size as u64)).unwrap()
        };
        bencher.counter(BytesCount::new(size)).with_inputs(begin).bench_local_values(
            |mut ingest| {
                for chunk in body.chunks(CHUNK) {
                    ingest.write(chunk).unwrap();
                }
                ingest.finish().unwrap()
            },
        );
    }

    #[divan::bench(args = SIZES)]
    fn ingest_encrypted(bencher: Bencher, size: usize) {
        bench_ingest(bencher, size, true);
    }

    #[divan::bench(args = SIZES)]
    fn ingest_plain(bencher: Bencher, size: usize) {
        bench_ingest(bencher, size, false);
    }

    /// Limit: no file, and no copy except the cipher's.
    #[divan::bench(args = SIZES)]
    fn aes_and_two_sha256(bencher: Bencher, size: usize) {
        let body = body(size);
        bencher.counter(BytesCount::new(size)).bench_local(|| {
            let mut cipher = cipher();
            let [mut outer, mut inner] = [Sha256::new(), Sha256::new()];
            let mut buffer = Vec::with_capacity(CHUNK);
            for chunk in body.chunks(CHUNK) {
                outer.update(chunk);
                buffer.clear();
                buffer.extend_from_slice(chunk);
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
            for chunk in body.chunks_mut(CHUNK) {
                cipher.apply_keystream(black_box(chunk));
            }
        });
    }

    #[divan::bench(args = SIZES)]
    fn sha256_alone(bencher: Bencher, size: usize) {
        let body = body(size);
        bencher.counter(BytesCount::new(size)).bench_local(|| {
            let mut hash = Sha256::new();
            for chunk in body.chunks(CHUNK) {
                hash.update(black_box(chunk));
            }
            hash.finalize()
        });
    }
}

/// File type detection by content.
#[divan::bench_group]
mod detection {
    use std::hint::black_box;

    use divan::{Bencher, counter::BytesCount};
    use mcs_filetype::Detector;

    const SIZES: [usize; 4] = [4 << 10, 100 << 10, 1 << 20, 4 << 20];

    /// Detects `size` pseudo-random bytes that begin with `prefix`.
    fn bench_detect(bencher: Bencher, size: usize, prefix: &[u8]) {
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
        bytes.splice(..prefix.len(), prefix.iter().copied());
        bencher
            .counter(BytesCount::new(size))
            .bench_local(|| detector.detect_bytes(black_box(&bytes)));
    }

    /// Matches no rule, so that every rule is evaluated.
    #[divan::bench(args = SIZES, sample_count = 20)]
    fn noise(bencher: Bencher, size: usize) {
        bench_detect(bencher, size, b"");
    }

    #[divan::bench(args = SIZES, sample_count = 20)]
    fn png(bencher: Bencher, size: usize) {
        bench_detect(
            bencher,
            size,
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0\0\0\x01\0\x08\x06\0\0\0",
        );
    }
}

/// Media names and sealed request bodies.
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
    fn parse_media_path() -> MediaId {
        MediaId::parse(black_box(SERVER), black_box(MEDIA)).unwrap()
    }

    #[divan::bench]
    fn parse_mxc_uri(bencher: Bencher) {
        let mxc = format!("mxc://{SERVER}/{MEDIA}");
        bencher.bench_local(|| MediaId::from_mxc(black_box(&mxc)).unwrap());
    }

    /// Returns a key ring and the ciphertext, MAC and ephemeral key of a sealed body of 600 bytes, the typical size of
    /// a body for encrypted media.
    fn sealed_body() -> (Keyring, [String; 3]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let (key, _) = RequestKey::load(&Settings::RequestSecret { path, generate: true }).unwrap();
        let public = Curve25519PublicKey::from_base64(&key.public_key()).unwrap();
        let message = PkEncryption::from_key(public).encrypt(&[b'x'; 600]).unwrap();
        let parts = [message.ciphertext, message.mac, message.ephemeral_key.to_vec()];
        (Keyring::new(key, Duration::ZERO), parts.map(|part| STANDARD_NO_PAD.encode(part)))
    }

    #[divan::bench]
    fn open_sealed_body(bencher: Bencher) {
        let (keys, [ciphertext, mac, ephemeral]) = sealed_body();
        bencher.bench_local(|| keys.open(black_box(&ciphertext), &mac, &ephemeral).unwrap());
    }

    /// Limit: key agreement only.
    #[divan::bench]
    fn curve25519_alone(bencher: Bencher) {
        let secret = Curve25519SecretKey::new();
        let other = Curve25519PublicKey::from(&Curve25519SecretKey::new());
        bencher.bench_local(|| black_box(&secret).diffie_hellman(&other));
    }
}

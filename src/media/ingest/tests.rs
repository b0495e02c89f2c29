//! Tests of stored bodies, their limits and their reservations.

use std::io::{Read, Seek, SeekFrom};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::{media::run_directory::RunDirectory, tenancy::Tenant};

struct SpoolFixture {
    _directory: tempfile::TempDir,
    spool: Spool,
}

fn run_directory(parent: &tempfile::TempDir) -> Arc<RunDirectory> {
    Arc::new(RunDirectory::create(parent.path(), false).unwrap())
}

fn fixture(limit: u64) -> SpoolFixture {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::new(run_directory(&directory), limit, limit);
    SpoolFixture { _directory: directory, spool }
}

fn options(fixture: &SpoolFixture, memory_limit: u64) -> IngestOptions {
    IngestOptions {
        account: fixture.spool.account(Tenant::Local),
        max_size: 1 << 30,
        memory_limit,
        keep_large: true,
        decryption: None,
        script_file: None,
    }
}

fn script_file(fixture: &SpoolFixture, tamper_proof: bool) -> ScriptFile {
    ScriptFile { file: fixture.spool.create_unnamed_file().unwrap(), tamper_proof }
}

fn content(body: &Body) -> Vec<u8> {
    body.clone().into_memory().unwrap().to_vec()
}

fn written(plaintext: &Plaintext) -> Vec<u8> {
    let mut file = &plaintext.file;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Tests random lengths, chunk sizes and kinds of storage.
    #[test]
    fn decryption_inverts_encryption_for_all_chunk_sizes(
        plaintext in proptest::collection::vec(any::<u8>(), 0..5000),
        key in any::<[u8; 32]>(),
        iv in any::<[u8; 8]>(),
        pieces in proptest::collection::vec(1usize..700, 1..20),
        memory_limit in 0u64..5000,
    ) {
        let mut counter = [0; 16];
        counter[..8].copy_from_slice(&iv);
        let mut ciphertext = plaintext.clone();
        Decryption::new(key, counter, [0; 32]).cipher().apply(&mut ciphertext);
        let decryption = Decryption::new(key, counter, sha256(&ciphertext));
        let fixture = fixture(1 << 30);
        let options = IngestOptions {
            decryption: Some(Arc::new(decryption)),
            script_file: Some(script_file(&fixture, true)),
            ..options(&fixture, memory_limit)
        };
        let mut ingest = Ingest::new(&fixture.spool, options, None).unwrap();
        let mut rest = &ciphertext[..];
        for size in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, remainder) = rest.split_at((*size).min(rest.len()));
            ingest.write(chunk).unwrap();
            rest = remainder;
        }
        let ingested = ingest.finish().unwrap();
        let body = ingested.body.unwrap();
        let decrypted = ingested.plaintext.unwrap();
        prop_assert_eq!(content(&body), ciphertext);
        prop_assert_eq!(written(&decrypted), plaintext.clone());
        prop_assert_eq!(decrypted.hash, sha256(&plaintext));
        prop_assert_eq!(matches!(body, Body::Memory(_)), ingested.size <= memory_limit);
    }
}

#[test]
fn wrong_hash_gives_no_plaintext() {
    let fixture = fixture(1 << 20);
    let options = IngestOptions {
        decryption: Some(Arc::new(Decryption::new([1; 32], [2; 16], [3; 32]))),
        script_file: Some(script_file(&fixture, false)),
        ..options(&fixture, 0)
    };
    let mut ingest = Ingest::new(&fixture.spool, options, Some(3)).unwrap();
    ingest.write(b"abc").unwrap();
    assert!(matches!(ingest.finish(), Err(IngestError::HashMismatch)));
    assert_eq!(fixture.spool.used(), 0);
}

/// An IV whose low 64 bits wrap after this many blocks.
fn iv_wrapping_after(blocks: u64) -> [u8; 16] {
    let mut iv = [0xa5; 16];
    iv[8..].copy_from_slice(&(u64::MAX - blocks + 1).to_be_bytes());
    iv
}

fn wrapping_options(fixture: &SpoolFixture, blocks: u64, ciphertext: &[u8]) -> IngestOptions {
    let decryption = Decryption::new([1; 32], iv_wrapping_after(blocks), sha256(ciphertext));
    IngestOptions {
        decryption: Some(Arc::new(decryption)),
        script_file: Some(script_file(fixture, true)),
        ..options(fixture, 0)
    }
}

#[test]
fn rejects_announced_size_beyond_counter_wrap() {
    let fixture = fixture(1 << 20);
    let ingest_with =
        |length| Ingest::new(&fixture.spool, wrapping_options(&fixture, 2, b""), Some(length));
    for length in [0, 1, 16, 17, 31, 32] {
        assert!(ingest_with(length).is_ok(), "{length}");
    }
    for length in [33, 48, 1 << 19] {
        assert!(
            matches!(ingest_with(length), Err(IngestError::CounterWraps { limit: 32 })),
            "{length}"
        );
    }
    // The configured limit is checked first, so that the error does not depend on the IV.
    let small = IngestOptions { max_size: 40, ..wrapping_options(&fixture, 2, b"") };
    let result = Ingest::new(&fixture.spool, small, Some(41));
    assert!(matches!(result, Err(IngestError::TooLarge { limit: 40 })));
    assert_eq!(fixture.spool.used(), 0);
}

#[test]
fn rejects_received_size_beyond_counter_wrap() {
    let fixture = fixture(1 << 20);
    let ciphertext = [7; 32];
    for announced in [None, Some(1), Some(32)] {
        for piece in [1, 5, 32] {
            let options = wrapping_options(&fixture, 2, &ciphertext);
            let mut ingest = Ingest::new(&fixture.spool, options, announced).unwrap();
            for bytes in ciphertext.chunks(piece) {
                ingest.write(bytes).unwrap();
            }
            let result = ingest.write(&[7]);
            assert!(matches!(result, Err(IngestError::CounterWraps { limit: 32 })));
        }
        let options = wrapping_options(&fixture, 2, &ciphertext);
        let mut ingest = Ingest::new(&fixture.spool, options, announced).unwrap();
        ingest.write(&ciphertext).unwrap();
        assert_eq!(ingest.finish().unwrap().size, 32);
    }
    let mut ingest = Ingest::new(&fixture.spool, wrapping_options(&fixture, 2, b""), None).unwrap();
    assert!(matches!(ingest.write(&[7; 33]), Err(IngestError::CounterWraps { limit: 32 })));
}

#[test]
fn rejects_counter_wrap_without_script_file() {
    // Media whose verdict is known is ingested without a script file.
    let fixture = fixture(1 << 20);
    let ingest_with = |length| {
        let options = IngestOptions { script_file: None, ..wrapping_options(&fixture, 2, b"") };
        Ingest::new(&fixture.spool, options, length)
    };
    assert!(matches!(ingest_with(Some(33)), Err(IngestError::CounterWraps { limit: 32 })));
    let result = ingest_with(None).unwrap().write(&[7; 33]);
    assert!(matches!(result, Err(IngestError::CounterWraps { limit: 32 })));
}

#[test]
fn rejects_announced_and_received_size_above_limit() {
    let fixture = fixture(1 << 20);
    let small = || IngestOptions { max_size: 10, ..options(&fixture, 100) };
    let announced = Ingest::new(&fixture.spool, small(), Some(11));
    assert!(matches!(announced, Err(IngestError::TooLarge { limit: 10 })));
    let mut ingest = Ingest::new(&fixture.spool, small(), None).unwrap();
    ingest.write(b"0123456789").unwrap();
    assert!(matches!(ingest.write(b"x"), Err(IngestError::TooLarge { limit: 10 })));
}

/// Starts an ingest with a script file that the script can change.
fn ingest_for_script(
    fixture: &SpoolFixture,
    announced: Option<u64>,
) -> Result<Ingest, IngestError> {
    let options =
        IngestOptions { script_file: Some(script_file(fixture, false)), ..options(fixture, 0) };
    Ingest::new(&fixture.spool, options, announced)
}

#[test]
fn reserves_before_first_byte_and_releases_after_serving() {
    let fixture = fixture(1000);
    let ingest_with = |announced| ingest_for_script(&fixture, announced);
    let mut ingest = ingest_with(Some(500)).unwrap();
    assert_eq!(fixture.spool.used(), 1000, "two copies");
    assert!(matches!(ingest_with(Some(1)), Err(IngestError::SpoolFull)));
    ingest.write(&[7; 500]).unwrap();
    let ingested = ingest.finish().unwrap();
    drop(ingested.plaintext);
    assert_eq!(fixture.spool.used(), 500, "the body is still to be served");
    drop(ingested.body);
    assert_eq!(fixture.spool.used(), 0);
}

#[test]
fn distinguishes_too_large_from_spool_full() {
    let fixture = fixture(1000);
    let ingest_with = |announced| ingest_for_script(&fixture, announced);
    assert!(matches!(ingest_with(Some(501)), Err(IngestError::TooLarge { limit: 500 })));
    let mut unannounced = ingest_with(None).unwrap();
    unannounced.write(&[7; 500]).unwrap();
    let mut second = ingest_with(None).unwrap();
    assert!(matches!(second.write(&[7]), Err(IngestError::SpoolFull)));
    assert!(matches!(unannounced.write(&[7]), Err(IngestError::TooLarge { limit: 500 })));
    drop((unannounced, second));
    assert_eq!(fixture.spool.used(), 0);
    // One copy on disk: the script file is served, or the body is discarded.
    let shared =
        IngestOptions { script_file: Some(script_file(&fixture, true)), ..options(&fixture, 0) };
    Ingest::new(&fixture.spool, shared, Some(1000)).unwrap();
    let scanned = IngestOptions { keep_large: false, ..options(&fixture, 0) };
    let scanned = IngestOptions { script_file: Some(script_file(&fixture, false)), ..scanned };
    Ingest::new(&fixture.spool, scanned, Some(1000)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn body_that_never_fits_is_too_large_without_waiting() {
    let fixture = fixture(1000);
    let options =
        IngestOptions { script_file: Some(script_file(&fixture, false)), ..options(&fixture, 0) };
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    let ingest = Ingest::new_when_free(&fixture.spool, options, Some(501), deadline);
    let result = ingest.now_or_never().expect("does not wait");
    assert!(matches!(result, Err(IngestError::TooLarge { limit: 500 })));
}

#[test]
fn body_in_memory_has_no_spare_capacity() {
    let fixture = fixture(1000);
    let mut ingest = Ingest::new(&fixture.spool, options(&fixture, 1000), None).unwrap();
    for _ in 0..3 {
        ingest.write(&[7; 100]).unwrap();
    }
    let Some(Body::Memory(bytes)) = ingest.finish().unwrap().body else { unreachable!() };
    assert_eq!(bytes.try_into_mut().unwrap().capacity(), 300);
}

/// The default configuration.
fn default_spool() -> (tempfile::TempDir, Spool) {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::new(run_directory(&directory), 4096 << 20, 256 << 20);
    (directory, spool)
}

/// Starts a download of `size` bytes with two copies.
async fn start_download(spool: &Spool, token: u64, size: u64) -> Result<Ingest, IngestError> {
    let options = IngestOptions {
        account: spool.account(Tenant::Token(token)),
        max_size: 256 << 20,
        memory_limit: 1 << 20,
        keep_large: true,
        decryption: None,
        script_file: Some(ScriptFile {
            file: spool.create_unnamed_file().unwrap(),
            tamper_proof: false,
        }),
    };
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    Ingest::new_when_free(spool, options, Some(size), deadline).await
}

#[tokio::test]
async fn one_tenant_downloads_eight_large_files_at_once() {
    let (_directory, spool) = default_spool();
    let mut downloads = Vec::new();
    for _ in 0..8 {
        downloads.push(start_download(&spool, 1, 200 << 20).await.unwrap());
    }
    let others = start_download(&spool, 2, 200 << 20).await;
    assert!(others.is_ok(), "other tenants have room");
}

#[tokio::test(start_paused = true)]
async fn download_waits_for_space_until_its_deadline() {
    // Both copies of a body do not fit, or only the second one does not.
    for other_bytes in [600 << 20, 400 << 20] {
        let (_directory, spool) = default_spool();
        let mut reserved = spool.account(Tenant::Token(1)).reservation();
        reserved.grow_to(3200 << 20).unwrap();
        let mut other = spool.account(Tenant::Token(2)).reservation();
        other.grow_to(other_bytes).unwrap();
        let start = || start_download(&spool, 3, 200 << 20);
        assert!(matches!(start().await, Err(IngestError::SpoolFull)));
        let used = (3200 << 20) + other_bytes;
        assert_eq!(spool.used(), used, "a failed download holds no bytes");
        let waiting = start();
        let release = async {
            tokio::task::yield_now().await;
            drop(other);
        };
        let (waited, ()) = tokio::join!(waiting, release);
        assert!(waited.is_ok());
    }
}

#[test]
fn tamper_proof_file_is_written_once_and_outlives_script() {
    let fixture = fixture(1000);
    let options =
        IngestOptions { script_file: Some(script_file(&fixture, true)), ..options(&fixture, 0) };
    let mut ingest = Ingest::new(&fixture.spool, options, Some(1000)).unwrap();
    ingest.write(&[7; 1000]).unwrap();
    let ingested = ingest.finish().unwrap();
    drop(ingested.plaintext);
    assert_eq!(content(&ingested.body.unwrap()), [7; 1000]);
}

#[test]
fn discards_large_body_if_only_verdict_is_needed() {
    let fixture = fixture(1000);
    let options = IngestOptions { keep_large: false, ..options(&fixture, 4) };
    let mut ingest = Ingest::new(&fixture.spool, options, None).unwrap();
    ingest.write(b"01234").unwrap();
    let ingested = ingest.finish().unwrap();
    assert!(ingested.body.is_none());
    assert_eq!(ingested.body_hash, sha256(b"01234"));
}

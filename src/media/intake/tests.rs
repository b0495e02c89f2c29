//! Bodies on their way in: what is kept, where, and at whose expense.

use std::io::{Read, Seek, SeekFrom};

use proptest::prelude::*;

use super::*;

struct Bench {
    _directory: tempfile::TempDir,
    spool: Spool,
}

fn bench(limit: u64) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::new(directory.path().to_owned(), limit, limit);
    Bench { _directory: directory, spool }
}

fn plan(bench: &Bench, memory_limit: u64) -> Plan {
    Plan {
        account: bench.spool.account("a.example", None),
        max_size: 1 << 30,
        memory_limit,
        keep_large: true,
        decryption: None,
        script_file: None,
    }
}

fn script_file(bench: &Bench, tamper_proof: bool) -> ScriptFile {
    ScriptFile { file: bench.spool.nameless_file().unwrap(), tamper_proof }
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

    /// Whatever the length, the pieces, and where the body is kept: what was encrypted comes back.
    #[test]
    fn decrypting_undoes_encrypting_in_pieces_of_any_size(
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
        let bench = bench(1 << 30);
        let plan = Plan {
            decryption: Some(Arc::new(decryption)),
            script_file: Some(script_file(&bench, true)),
            ..plan(&bench, memory_limit)
        };
        let mut intake = Intake::begin(&bench.spool, plan, None).unwrap();
        let mut rest = &ciphertext[..];
        for size in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, remainder) = rest.split_at((*size).min(rest.len()));
            intake.write(piece).unwrap();
            rest = remainder;
        }
        let taken = intake.finish().unwrap();
        let body = taken.body.unwrap();
        let opened = taken.plaintext.unwrap();
        prop_assert_eq!(content(&body), ciphertext);
        prop_assert_eq!(written(&opened), plaintext.clone());
        prop_assert_eq!(opened.hash, sha256(&plaintext));
        prop_assert_eq!(matches!(body, Body::Memory(_)), taken.size <= memory_limit);
    }
}

#[test]
fn a_hash_that_does_not_hold_gives_no_plaintext() {
    let bench = bench(1 << 20);
    let plan = Plan {
        decryption: Some(Arc::new(Decryption::new([1; 32], [2; 16], [3; 32]))),
        script_file: Some(script_file(&bench, false)),
        ..plan(&bench, 0)
    };
    let mut intake = Intake::begin(&bench.spool, plan, Some(3)).unwrap();
    intake.write(b"abc").unwrap();
    assert!(matches!(intake.finish(), Err(IntakeError::HashMismatch)));
    assert_eq!(bench.spool.used(), 0);
}

/// An IV whose low 64 bits wrap after this many blocks.
fn iv_wrapping_after(blocks: u64) -> [u8; 16] {
    let mut iv = [0xa5; 16];
    iv[8..].copy_from_slice(&(u64::MAX - blocks + 1).to_be_bytes());
    iv
}

fn wrapping_plan(bench: &Bench, blocks: u64, ciphertext: &[u8]) -> Plan {
    let decryption = Decryption::new([1; 32], iv_wrapping_after(blocks), sha256(ciphertext));
    Plan {
        decryption: Some(Arc::new(decryption)),
        script_file: Some(script_file(bench, true)),
        ..plan(bench, 0)
    }
}

#[test]
fn a_counter_that_would_wrap_is_refused_by_the_announced_size() {
    let bench = bench(1 << 20);
    let begin = |length| Intake::begin(&bench.spool, wrapping_plan(&bench, 2, b""), Some(length));
    for length in [0, 1, 16, 17, 31, 32] {
        assert!(begin(length).is_ok(), "{length}");
    }
    for length in [33, 48, 1 << 19] {
        assert!(matches!(begin(length), Err(IntakeError::CounterWraps { limit: 32 })), "{length}");
    }
    // The configured limit comes first: the answer does not depend on the IV.
    let small = Plan { max_size: 40, ..wrapping_plan(&bench, 2, b"") };
    let outcome = Intake::begin(&bench.spool, small, Some(41));
    assert!(matches!(outcome, Err(IntakeError::TooLarge { limit: 40 })));
    assert_eq!(bench.spool.used(), 0);
}

#[test]
fn a_counter_that_would_wrap_is_refused_by_the_counted_size() {
    let bench = bench(1 << 20);
    let ciphertext = [7; 32];
    for announced in [None, Some(1), Some(32)] {
        for piece in [1, 5, 32] {
            let plan = wrapping_plan(&bench, 2, &ciphertext);
            let mut intake = Intake::begin(&bench.spool, plan, announced).unwrap();
            for bytes in ciphertext.chunks(piece) {
                intake.write(bytes).unwrap();
            }
            let outcome = intake.write(&[7]);
            assert!(matches!(outcome, Err(IntakeError::CounterWraps { limit: 32 })));
        }
        let plan = wrapping_plan(&bench, 2, &ciphertext);
        let mut intake = Intake::begin(&bench.spool, plan, announced).unwrap();
        intake.write(&ciphertext).unwrap();
        assert_eq!(intake.finish().unwrap().size, 32);
    }
    let mut intake = Intake::begin(&bench.spool, wrapping_plan(&bench, 2, b""), None).unwrap();
    assert!(matches!(intake.write(&[7; 33]), Err(IntakeError::CounterWraps { limit: 32 })));
}

#[test]
fn a_counter_that_would_wrap_is_refused_without_a_file_for_the_script() {
    // So is a media taken in whose verdict is known.
    let bench = bench(1 << 20);
    let begin = |length| {
        let plan = Plan { script_file: None, ..wrapping_plan(&bench, 2, b"") };
        Intake::begin(&bench.spool, plan, length)
    };
    assert!(matches!(begin(Some(33)), Err(IntakeError::CounterWraps { limit: 32 })));
    let outcome = begin(None).unwrap().write(&[7; 33]);
    assert!(matches!(outcome, Err(IntakeError::CounterWraps { limit: 32 })));
}

#[test]
fn a_body_is_bounded_by_its_announced_and_by_its_counted_size() {
    let bench = bench(1 << 20);
    let small = || Plan { max_size: 10, ..plan(&bench, 100) };
    let announced = Intake::begin(&bench.spool, small(), Some(11));
    assert!(matches!(announced, Err(IntakeError::TooLarge { limit: 10 })));
    let mut intake = Intake::begin(&bench.spool, small(), None).unwrap();
    intake.write(b"0123456789").unwrap();
    assert!(matches!(intake.write(b"x"), Err(IntakeError::TooLarge { limit: 10 })));
}

#[test]
fn the_spools_budget_is_taken_before_the_body_comes_and_given_back_after_it_is_served() {
    let bench = bench(1000);
    let begin = |announced| {
        let plan = Plan { script_file: Some(script_file(&bench, false)), ..plan(&bench, 0) };
        Intake::begin(&bench.spool, plan, announced)
    };
    let mut intake = begin(Some(500)).unwrap();
    assert_eq!(bench.spool.used(), 1000, "two copies");
    assert!(matches!(begin(Some(1)), Err(IntakeError::SpoolFull)));
    intake.write(&[7; 500]).unwrap();
    let taken = intake.finish().unwrap();
    drop(taken.plaintext);
    assert_eq!(bench.spool.used(), 500, "the body is still to be served");
    drop(taken.body);
    assert_eq!(bench.spool.used(), 0);
}

#[test]
fn what_could_never_fit_is_too_large_and_what_does_not_fit_now_is_not() {
    let bench = bench(1000);
    let begin = |announced| {
        let plan = Plan { script_file: Some(script_file(&bench, false)), ..plan(&bench, 0) };
        Intake::begin(&bench.spool, plan, announced)
    };
    assert!(matches!(begin(Some(501)), Err(IntakeError::TooLarge { limit: 500 })));
    let mut unannounced = begin(None).unwrap();
    unannounced.write(&[7; 500]).unwrap();
    let mut second = begin(None).unwrap();
    assert!(matches!(second.write(&[7]), Err(IntakeError::SpoolFull)));
    assert!(matches!(unannounced.write(&[7]), Err(IntakeError::TooLarge { limit: 500 })));
    drop((unannounced, second));
    assert_eq!(bench.spool.used(), 0);
    // One copy: nothing is kept, or one file is both.
    let shared = Plan { script_file: Some(script_file(&bench, true)), ..plan(&bench, 0) };
    Intake::begin(&bench.spool, shared, Some(1000)).unwrap();
    let scanned = Plan { keep_large: false, ..plan(&bench, 0) };
    let scanned = Plan { script_file: Some(script_file(&bench, false)), ..scanned };
    Intake::begin(&bench.spool, scanned, Some(1000)).unwrap();
}

#[test]
fn a_body_in_memory_takes_no_more_than_its_size() {
    let bench = bench(1000);
    let mut intake = Intake::begin(&bench.spool, plan(&bench, 1000), None).unwrap();
    for _ in 0..3 {
        intake.write(&[7; 100]).unwrap();
    }
    let Some(Body::Memory(bytes)) = intake.finish().unwrap().body else { unreachable!() };
    assert_eq!(bytes.try_into_mut().unwrap().capacity(), 300);
}

#[test]
fn a_server_that_drips_leaves_room_for_others() {
    const MIB: u64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::new(directory.path().to_owned(), 4096 * MIB, 256 * MIB);
    let begin = |server: &str, token: &[u8], announced| {
        let plan = Plan {
            account: spool.account(server, Some(token)),
            max_size: 256 * MIB,
            memory_limit: MIB,
            keep_large: true,
            decryption: None,
            script_file: Some(ScriptFile {
                file: spool.nameless_file().unwrap(),
                tamper_proof: false,
            }),
        };
        Intake::begin(&spool, plan, Some(announced))
    };
    let drip: Vec<_> =
        (0..8).flat_map(|token| begin("drip.example", &[token], 256 * MIB)).collect();
    assert_eq!(drip.len(), 2);
    for token in 8..16 {
        begin("other.example", &[token], 256 * MIB).unwrap();
        begin("drip.example", &[token], MIB).unwrap();
    }
}

#[test]
fn a_file_out_of_the_scripts_reach_is_written_once_and_outlives_the_script() {
    let bench = bench(1000);
    let plan = Plan { script_file: Some(script_file(&bench, true)), ..plan(&bench, 0) };
    let mut intake = Intake::begin(&bench.spool, plan, Some(1000)).unwrap();
    intake.write(&[7; 1000]).unwrap();
    let taken = intake.finish().unwrap();
    drop(taken.plaintext);
    assert_eq!(content(&taken.body.unwrap()), [7; 1000]);
}

#[test]
fn who_wants_only_a_verdict_keeps_no_large_body() {
    let bench = bench(1000);
    let plan = Plan { keep_large: false, ..plan(&bench, 4) };
    let mut intake = Intake::begin(&bench.spool, plan, None).unwrap();
    intake.write(b"01234").unwrap();
    let taken = intake.finish().unwrap();
    assert!(taken.body.is_none());
    assert_eq!(taken.body_hash, sha256(b"01234"));
}

mod agreement;
mod samples;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::LazyLock,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use pure_magic::MagicDb;

use crate::{
    Detector, MediaType, MimeRules, can_detect,
    limited_reader::HEAD_LEN,
    names::{PLAIN_TEXT, UNKNOWN},
    rules::decode,
    text::decode_text,
};
use samples::{elf, pe, samples};

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| Detector::new().unwrap());
/// Evaluates the rules as they are before pruning, without buckets.
static UNPRUNED: LazyLock<Detector> = LazyLock::new(|| {
    let rules = decode(include_bytes!(concat!(env!("OUT_DIR"), "/filetypes-unpruned"))).unwrap();
    let texts = include_bytes!(concat!(env!("OUT_DIR"), "/filetypes-unpruned-texts"));
    Detector::from_rules(rules, decode(texts).unwrap())
});

fn detect(bytes: impl AsRef<[u8]>) -> String {
    DETECTOR.detect_bytes(bytes.as_ref()).to_string()
}

/// Detects by reads of at most 1021 bytes.
fn detect_in_pieces(content: &[u8]) -> String {
    let read_at = |buffer: &mut [u8], offset| {
        let rest = &content[content.len().min(usize::try_from(offset).unwrap())..];
        let length = rest.len().min(buffer.len()).min(1021);
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    };
    DETECTOR.detect(content.len() as u64, read_at).unwrap().to_string()
}

/// Asserts that the type is complete and known, and that the unpruned rules yield the same one.
fn check_type(bytes: &[u8]) {
    let name = detect(bytes);
    assert_eq!(name.split('/').filter(|part| !part.is_empty()).count(), 2, "{name}");
    assert!(can_detect(&name), "{name}");
    assert_eq!(UNPRUNED.detect_bytes(bytes).as_str(), name);
}

#[test]
fn detects_common_types() {
    for (mime, bytes) in samples() {
        assert_eq!(detect(&bytes), mime, "{}", bytes.escape_ascii());
        assert!(can_detect(mime), "{mime}");
        assert_eq!(detect_in_pieces(&bytes), mime);
        assert_eq!(MediaType::from_name(mime).unwrap().as_str(), mime);
    }
}

/// Tolerates differences in a tenth of the samples: the installed `file` may be of another release.
#[test]
fn agrees_with_installed_file() {
    let samples = samples();
    #[expect(clippy::disallowed_methods, reason = "the test compares with the program `file`")]
    let file = || Command::new("file");
    if file().arg("--version").output().is_err() {
        println!("skipped: `file` is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut differences = Vec::new();
    for (number, (mime, bytes)) in samples.iter().enumerate() {
        let path = directory.path().join(number.to_string());
        fs::write(&path, bytes).unwrap();
        let output = file().args(["--brief", "--mime-type"]).arg(&path).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        if printed.trim() != *mime {
            differences.push((printed.trim().to_owned(), *mime));
        }
    }
    println!("differences from `file`: {differences:?}");
    assert!(differences.len() * 10 < samples.len(), "{differences:?}");
}

#[test]
fn detects_empty_and_one_byte_files() {
    assert_eq!(detect(b""), UNKNOWN);
    assert_eq!(detect_in_pieces(b""), UNKNOWN);
    assert_eq!(detect(b"\0"), UNKNOWN);
    assert_eq!(detect(b"a"), UNKNOWN);
    assert_eq!(detect(b"\n"), UNKNOWN);
    assert_eq!(detect(b"a\n"), PLAIN_TEXT);
}

#[test]
fn unreadable_file_has_no_type() {
    let fails = |_: &mut [u8], _| Err(std::io::ErrorKind::PermissionDenied.into());
    assert!(DETECTOR.detect(9, fails).is_err());
}

#[test]
fn ignores_byte_order_mark() {
    let mark = b"\xef\xbb\xbf";
    assert_eq!(detect([&mark[..], b"#!/bin/sh\necho\n"].concat()), "text/x-shellscript");
    assert_eq!(
        detect([&mark[..], b"<svg xmlns=\"http://www.w3.org/2000/svg\">"].concat()),
        "image/svg+xml"
    );
    assert_eq!(detect(mark), PLAIN_TEXT);
}

#[test]
fn ignores_types_that_file_does_not_report() {
    assert_eq!(detect("Hello, friend\nHow, are you\n"), PLAIN_TEXT);
    assert_eq!(detect("<html>,\n<body>,\n"), "text/html");
    assert_ne!(detect("use std::io;\nfn main() {\n    println!(\"x\");\n}\n"), "text/x-rust");
}

#[test]
fn detects_long_texts_and_json() {
    let text = "Привет, как дела? Все хорошо\n".repeat(60_000);
    assert_eq!(detect(&text), PLAIN_TEXT);
    let json = format!("[{}0]", "{\"a\":1},".repeat(200_000));
    assert_eq!(detect(&json), "application/json");
    assert_eq!(detect(json.get(..HEAD_LEN / 2).unwrap()), PLAIN_TEXT);
    assert_eq!(detect("{\"a\":1}\n".repeat(10_000)), "application/x-ndjson");
}

#[test]
fn detects_files_longer_than_head() {
    // The dynamic section is after the part that rules see.
    let program = elf(2 * HEAD_LEN, 0x0800_0000);
    assert_eq!(detect(&program), "application/x-pie-executable");
    assert_eq!(detect_in_pieces(&program), "application/x-pie-executable");
    // The end of an archive after other content.
    let mut archive = vec![1; 2 * HEAD_LEN];
    archive.extend(b"PK\x05\x06");
    archive.resize(2 * HEAD_LEN + 22, 0);
    assert_eq!(detect(&archive), "application/zip");
    assert_eq!(detect(archive.get(2 * HEAD_LEN - 9..).unwrap()), "application/zip");
    assert_eq!(detect_in_pieces(&archive), "application/zip");
}

/// Without the read budget, each of these files takes seconds.
#[test]
fn limits_time_for_headers_that_refer_to_one_another() {
    for (levels, architectures) in [(5_u32, 18), (50, 18), (50, 2)] {
        let mut file = Vec::new();
        for level in 1..=levels {
            file.extend(0xcafe_babe_u32.to_be_bytes());
            file.extend(u32::to_be_bytes(architectures));
            for _ in 0..architectures {
                let entry = [0x0100_0007, 3, level * 512, 100, 12];
                file.extend(entry.into_iter().flat_map(u32::to_be_bytes));
            }
            file.resize(512 * level as usize, 0);
        }
        let start = Instant::now();
        assert_eq!(detect(&file), "application/x-mach-binary");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

#[test]
fn recognises_names_of_types() {
    for name in [
        "image/png",
        "IMAGE/PNG",
        "image/png; x=y",
        "text/plain",
        "application/json",
        "application/CDFV2",
        "application/x-dosexec",
        "text/csv",
        "video/mp4",
    ] {
        assert!(can_detect(name), "{name}");
    }
    for name in ["", "image", "image/*", "audio/wav", "image/pgn", "text/x-rust"] {
        assert!(!can_detect(name), "{name}");
    }
}

#[test]
fn pruned_rules_agree_where_first_match_is_excluded() {
    let texts = samples().into_iter().filter(|(_, bytes)| decode_text(bytes).is_some());
    for (_, text) in texts {
        // CSV with two columns, a bitmap in C, and programs in Rust and Raku.
        for prefix in [
            "a,b\nc,d\n",
            "#define a_width 1\n#define a_height 1\n",
            "use std::io;\nfn main() {\n",
            "use v6;\n",
        ] {
            let text = [prefix.as_bytes(), &text].concat();
            let expected = UNPRUNED.detect_bytes(&text);
            assert_eq!(DETECTOR.detect_bytes(&text), expected, "{}", text.escape_ascii());
        }
    }
}

#[test]
fn pruned_rules_keep_all_types() {
    let pruned = DETECTOR.all_rules().unwrap();
    let unpruned = UNPRUNED.all_rules().unwrap();
    for rules in [[pruned, DETECTOR.text_rules()], [unpruned, UNPRUNED.text_rules()]] {
        let json = rules.map(|rules| serde_json::to_string(rules).unwrap()).concat();
        let in_rules = json.split(r#""mimetype":""#).skip(1);
        let in_rules = in_rules.map(|rest| {
            let name = format!("\"{}\"", rest.split('"').next().unwrap());
            MediaType::from_rule(&serde_json::from_str::<String>(&name).unwrap())
        });
        let mut count = 0;
        for known in in_rules {
            assert_eq!(MediaType::from_name(known.as_str()), Some(known));
            count += 1;
        }
        assert!(count > 500, "{count}");
    }
    assert_eq!(pruned.rules().len(), unpruned.rules().len());
    assert_eq!(DETECTOR.text_rules().rules().len(), UNPRUNED.text_rules().rules().len());
    let size = |rules: &MagicDb| serde_json::to_string(rules).unwrap().len();
    assert!(size(pruned) * 3 < size(unpruned) * 2, "pruned by less than a third");
    for (mime, bytes) in samples() {
        assert_eq!(UNPRUNED.detect_bytes(&bytes).as_str(), mime);
    }
}

#[test]
fn loads_all_rules_only_for_files_that_need_them() {
    let detector = Detector::new().unwrap();
    let (tagged_music, others): (Vec<_>, Vec<_>) =
        samples().into_iter().partition(|(mime, _)| *mime == "audio/mpeg");
    for (is_loaded, samples) in [(false, others), (true, tagged_music)] {
        for (mime, bytes) in samples {
            assert_eq!(detector.detect_bytes(&bytes).as_str(), mime);
        }
        assert_eq!(detector.has_loaded_all_rules(), is_loaded);
    }
}

#[test]
fn lists_allow_or_block_types() {
    assert!(MimeRules::All.allows("x/y"));
    let only = MimeRules::only(["image/PNG", "text/plain; charset=utf-8"]);
    assert!(only.allows("image/png") && only.allows("Text/Plain;charset=x"));
    assert!(!only.allows("image/jpeg") && !only.allows(""));
    let all_but = MimeRules::all_but(["application/x-dosexec", "application/vnd.rar"]);
    assert!(all_but.allows("image/png"));
    assert!(!all_but.allows("application/x-dosexec") && !all_but.allows("application/vnd.rar"));
    // An older name in a list applies to the current name, but not the other way round.
    assert!(!all_but.allows("application/vnd.microsoft.portable-executable"));
    assert!(all_but.allows("application/x-rar"));
    assert!(!MimeRules::only::<&str>([]).allows("image/png"));
}

#[test]
fn detects_content_after_tag_in_long_files() {
    // As long as the part that rules see: the buckets use half of the read budget.
    let noise = |n: u32| n.wrapping_mul(0x9e37_79b1).rotate_left(9).to_le_bytes()[0];
    for (content, name) in
        [(b"\xff\xfb\x90\x64".to_vec(), "audio/mpeg"), (pe(), "application/x-dosexec")]
    {
        let mut file = [b"ID3\x04\0\0\0\0\0\0".to_vec(), content].concat();
        file.extend((0..u32::try_from(HEAD_LEN).unwrap()).map(noise));
        assert_eq!(detect(&file), name);
        assert_eq!(UNPRUNED.detect_bytes(&file).as_str(), name);
    }
}

/// Runs the inputs of the fuzz target (`fuzz/run filetype`).
#[test]
fn pruned_rules_agree_for_fuzz_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/filetype");
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        // Printed only if the test fails.
        println!("{}", path.display());
        check_type(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 10, "only {count} inputs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn pruned_rules_agree_for_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        check_type(&bytes);
    }

    #[test]
    fn pruned_rules_agree_for_damaged_samples(
        sample in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample.get(&samples()).1.clone();
        for (offset, byte) in damage {
            let offset = offset.index(bytes.len());
            bytes[offset] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        check_type(&bytes);
    }
}

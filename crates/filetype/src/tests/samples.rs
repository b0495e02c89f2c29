use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| Detector::new().unwrap());
/// By the rules as they come.
static UNTOUCHED: LazyLock<Detector> = LazyLock::new(|| of(magic_db::load().unwrap()));

/// By these rules, of which none is on a shelf.
fn of(rules: MagicDb) -> Detector {
    let (shelves, names, found) = <_>::default();
    Detector { shelves, whole: OnceLock::from(Some(rules)), names, found }
}

fn detect(bytes: impl AsRef<[u8]>) -> String {
    DETECTOR.detect_bytes(bytes.as_ref()).to_string()
}

fn on_disk(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn ole(stream: &str) -> Vec<u8> {
    let mut file = [OLE, &[0; 22], &[9, 0], &[0; 16], &[0; 4]].concat();
    file.resize(512, 0);
    for name in ["Root Entry", stream] {
        let mut entry: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        entry.resize(128, 0);
        file.extend(entry);
    }
    file
}

/// A 64-bit program with two program headers; its dynamic section lies at `dynamic`.
fn elf(dynamic: usize, flags: u64) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    for word in [0_u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [0_u16, 0, 64, 56, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for (kind, at, len) in [(1_u64, 0, 0), (2, dynamic as u64, 32)] {
        for word in [kind, at, 0, 0, len, len, 8] {
            file.extend(word.to_le_bytes());
        }
    }
    file.resize(dynamic, 0);
    for word in [1, 1, 0x6fff_fffb, flags] {
        file.extend(word.to_le_bytes());
    }
    file
}

fn pe() -> Vec<u8> {
    let mut file = b"MZ".to_vec();
    file.resize(60, 0);
    file.extend(b"\x80\0\0\0");
    file.resize(128, 0);
    file.extend(b"PE\0\0\x64\x86\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\xf0\0\x22\0\x0b\x02");
    file.resize(600, 0);
    file
}

fn tar() -> Vec<u8> {
    let mut file = b"a.txt".to_vec();
    file.resize(100, 0);
    file.extend(b"0000644\x000000000\x000000000\x0000000000000\x0000000000000\0");
    file.extend([b' '; 8]);
    file.extend(b"0");
    file.resize(257, 0);
    file.extend(b"ustar\x0000");
    file.resize(512, 0);
    let sum: u32 = file.iter().map(|b| u32::from(*b)).sum();
    file.splice(148..156, format!("{sum:06o}\0 ").into_bytes());
    file.resize(2048, 0);
    file
}

fn zip(name: &str, content: &str) -> Vec<u8> {
    let mut file = b"PK\x03\x04\x0a\0\0\0\0\0\0\0\x21\0\0\0\0\0".to_vec();
    for len in [content.len(), content.len()] {
        file.extend(u32::try_from(len).unwrap().to_le_bytes());
    }
    file.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
    file.extend([0, 0]);
    file.extend(name.bytes().chain(content.bytes()));
    file
}

fn utf16(text: &str) -> Vec<u8> {
    [b'\xff', b'\xfe'].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

/// Beginnings of files that people send, and what they are.
fn samples() -> BTreeMap<&'static str, Vec<(&'static str, Vec<u8>)>> {
    let s = |bytes: &[u8]| bytes.to_vec();
    let latin = s(b"Gr\xfc\xdfe aus K\xf6ln, und ein Caf\xe9\n");
    let all = vec![
        ("image/png", s(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0")),
        ("image/jpeg", s(b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0")),
        ("image/gif", s(b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0")),
        ("image/webp", s(b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0\x30\x01\0\x9d\x01\x2a\x01\0\x01\0")),
        ("image/avif", s(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf")),
        ("image/heic", s(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")),
        ("image/svg+xml", s(b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>")),
        ("video/mp4", s(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41")),
        ("video/quicktime", s(b"\0\0\0\x14ftypqt  \0\0\x02\0qt  ")),
        ("video/webm", s(b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm")),
        ("video/x-matroska", s(b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x88matroska")),
        ("audio/mpeg", s(b"ID3\x04\0\0\0\0\0\x0aTSSE\0\0\0\0\0\0\xff\xfb\x90\x64\0\0\0\0\0\0\0\0")),
        ("audio/flac", s(b"fLaC\0\0\0\x22\x12\0\x12\0\0\0\0\0\0\0\x0a\xc4\x42\xf0")),
        ("audio/x-wav", s(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x44\xac\0\0")),
        ("audio/ogg", s(b"OggS\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead\x01\x02")),
        ("application/pdf", s(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n")),
        ("application/msword", ole("WordDocument")),
        ("application/vnd.ms-excel", ole("Workbook")),
        ("application/vnd.oasis.opendocument.text", zip("mimetype", "application/vnd.oasis.opendocument.text")),
        ("application/epub+zip", zip("mimetype", "application/epub+zip")),
        ("application/zip", zip("a.txt", "hello")),
        ("application/gzip", s(b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcbH\xcd\xc9\xc9\x07\0\x86\xa6\x106\x05\0\0\0")),
        ("application/x-7z-compressed", s(b"7z\xbc\xaf\x27\x1c\0\x04\x8d\x9b\xd5\x0f\0\0\0\0")),
        ("application/x-tar", tar()),
        ("application/x-mach-binary", s(b"\xcf\xfa\xed\xfe\x07\0\0\x01\x03\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")),
        ("application/vnd.microsoft.portable-executable", pe()),
        ("application/x-pie-executable", elf(200, 0x0800_0001)),
        ("application/x-sharedlib", elf(200, 1)),
        ("application/wasm", s(b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0")),
        ("text/x-shellscript", s(b"#!/bin/sh\necho hello\n")),
        ("text/x-script.python", s(b"#!/usr/bin/env python3\nprint(1)\n")),
        ("text/x-perl", s(b"#!/usr/bin/perl\nprint 1;\n")),
        ("text/html", s(b"<!DOCTYPE html>\n<html><body>x</body></html>\n")),
        ("text/html", utf16("<!DOCTYPE html>\n<html><body>x</body></html>\n")),
        ("text/xml", s(b"<?xml version=\"1.0\"?>\n<a><b/></a>\n")),
        ("application/json", s(b"{\"a\": [1, 2, {\"b\": null}]}\n")),
        ("text/csv", s(b"a,b,c\n1,2,3\n4,5,6\n")),
        ("text/plain", s(b"hello world\n")),
        ("text/plain", s("Gr\u{fc}\u{df}e, \u{4e16}\u{754c}! \u{1f600}\n".as_bytes())),
        ("text/plain", utf16("Gr\u{fc}\u{df}e\n")),
        ("text/plain", latin),
        // The EICAR test file, in two parts so that a virus scanner leaves this source alone.
        ("text/plain", [&b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD"[..], b"-ANTIVIRUS-TEST-FILE!$H+H*"].concat()),
        ("application/octet-stream", s(&[0; 100])),
        ("application/octet-stream", s(b"\x8a\x01\x9c\xf3\x02\xe7\x15\x06\xb0\x91\x1c\x80\xff\x03")),
    ];
    let mut by_type = BTreeMap::new();
    for (mime, bytes) in all {
        by_type.entry(mime).or_insert_with(Vec::new).push((mime, bytes));
    }
    by_type
}

#[test]
fn main_kinds() {
    for (mime, bytes) in samples().into_values().flatten() {
        assert_eq!(detect(&bytes), mime, "{:?}", bytes.escape_ascii().to_string());
        assert!(DETECTOR.knows(mime), "{mime}");
        assert_eq!(DETECTOR.detect(&on_disk(&bytes)).unwrap().as_str(), mime);
    }
}

/// The installed `file` may be of another release: of these samples its names differ in two.
#[test]
fn agrees_with_file() {
    let samples: Vec<_> = samples().into_values().flatten().collect();
    #[expect(clippy::disallowed_methods, reason = "a test compares with the program itself")]
    let file = || std::process::Command::new("file");
    if file().arg("--version").output().is_err() {
        println!("skipped: `file` is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (n, (mime, bytes)) in samples.iter().enumerate() {
        let path = directory.path().join(n.to_string());
        std::fs::write(&path, bytes).unwrap();
        let out = file().args(["--brief", "--mime-type"]).arg(&path).output().unwrap();
        let out = String::from_utf8(out.stdout).unwrap();
        if out.trim() != *mime {
            wrong.push((out.trim().to_owned(), *mime));
        }
    }
    println!("`file` says otherwise of: {wrong:?}");
    assert!(wrong.len() * 10 < samples.len(), "{wrong:?}");
}

#[test]
fn nothing_and_next_to_nothing() {
    assert_eq!(detect(b""), UNKNOWN);
    assert_eq!(DETECTOR.detect(&on_disk(b"")).unwrap().as_str(), UNKNOWN);
    assert_eq!(detect(b"\0"), UNKNOWN);
    assert_eq!(detect(b"a"), PLAIN);
    assert_eq!(detect(b"\n"), PLAIN);
}

#[test]
fn reading_does_not_move_the_position() {
    let mut file = on_disk(b"%PDF-1.7\n");
    file.seek(SeekFrom::Start(3)).unwrap();
    assert_eq!(DETECTOR.detect(&file).unwrap().as_str(), "application/pdf");
    assert_eq!(file.stream_position().unwrap(), 3);
}

#[test]
fn byte_order_marks_hide_nothing() {
    let mark = b"\xef\xbb\xbf";
    assert_eq!(detect([&mark[..], b"#!/bin/sh\necho\n"].concat()), "text/x-shellscript");
    assert_eq!(
        detect([&mark[..], b"<svg xmlns=\"http://www.w3.org/2000/svg\">"].concat()),
        "image/svg+xml"
    );
    assert_eq!(detect(mark), PLAIN);
}

#[test]
fn prose_is_no_csv() {
    assert_eq!(detect("Hello, friend\nHow, are you\n"), PLAIN);
    assert_eq!(detect("<html>,\n<body>,\n"), "text/html");
    assert_ne!(detect("use std::io;\nfn main() {\n    println!(\"x\");\n}\n"), "text/x-rust");
}

#[test]
fn large_files() {
    let text = "Привет, как дела? Все хорошо\n".repeat(60_000);
    assert_eq!(detect(&text), PLAIN);
    let json = format!("[{}0]", "{\"a\":1},".repeat(200_000));
    assert_eq!(detect(&json), "application/json");
    assert_eq!(detect(json.get(..HEAD / 2).unwrap()), PLAIN);
    assert_eq!(detect("{\"a\":1}\n".repeat(10_000)), "application/x-ndjson");
    // The dynamic section lies behind what the rules see, and the end of an archive that does not begin the file.
    assert_eq!(detect(elf(2 * HEAD, 0x0800_0000)), "application/x-pie-executable");
    let program = on_disk(&elf(2 * HEAD, 0x0800_0000));
    assert_eq!(DETECTOR.detect(&program).unwrap().as_str(), "application/x-pie-executable");
    let mut hidden = vec![1; 2 * HEAD];
    hidden.extend(b"PK\x05\x06");
    hidden.resize(2 * HEAD + 22, 0);
    assert_eq!(detect(&hidden), "application/zip");
    assert_eq!(detect(hidden.get(2 * HEAD - 9..).unwrap()), "application/zip");
    assert_eq!(DETECTOR.detect(&on_disk(&hidden)).unwrap().as_str(), "application/zip");
}

/// The engine by itself takes seconds for these.
#[test]
fn headers_that_lead_in_circles_end_soon() {
    for (levels, fan) in [(5_u32, 18), (50, 18), (50, 2)] {
        let mut file = Vec::new();
        for level in 1..=levels {
            file.extend(0xcafe_babe_u32.to_be_bytes());
            file.extend(u32::to_be_bytes(fan));
            for _ in 0..fan {
                let words = [0x0100_0007, 3, level * 512, 100, 12];
                file.extend(words.into_iter().flat_map(u32::to_be_bytes));
            }
            file.resize(512 * level as usize, 0);
        }
        let start = std::time::Instant::now();
        assert_eq!(detect(&file), "application/x-mach-binary");
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }
}

#[test]
fn names() {
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
        assert!(DETECTOR.knows(name), "{name}");
    }
    for name in ["", "image", "image/*", "audio/wav", "image/pgn", "text/x-rust"] {
        assert!(!DETECTOR.knows(name), "{name}");
    }
}

#[test]
fn leaner_rules_choose_as_all_rules_do_where_the_first_type_is_not_files() {
    let texts = samples().into_values().flatten().filter(|(_, bytes)| decoded(bytes).is_some());
    for (_, text) in texts {
        // A CSV of two columns, a bitmap in C, a program in Rust, in Raku.
        for before in [
            "a,b\nc,d\n",
            "#define a_width 1\n#define a_height 1\n",
            "use std::io;\nfn main() {\n",
            "use v6;\n",
        ] {
            let text = [before.as_bytes(), &text].concat();
            let untouched = UNTOUCHED.detect_bytes(&text);
            assert_eq!(
                DETECTOR.detect_bytes(&text),
                untouched,
                "{:?}",
                String::from_utf8_lossy(&text)
            );
        }
    }
}

#[test]
fn leaner_rules_know_what_all_rules_know() {
    let [lean, untouched] = [&DETECTOR, &UNTOUCHED].map(|it| it.whole().unwrap());
    assert_eq!(super::names(lean), super::names(untouched));
    assert_eq!(lean.rules().len(), untouched.rules().len());
    let size = |rules: &MagicDb| serde_json::to_string(rules).unwrap().len();
    assert!(size(lean) * 3 < size(untouched) * 2, "leaner");
    for (mime, bytes) in samples().into_values().flatten() {
        assert_eq!(UNTOUCHED.detect_bytes(&bytes).as_str(), mime);
    }
}

#[test]
fn all_rules_are_loaded_for_what_leads_to_them_alone() {
    let detector = Detector::new().unwrap();
    assert!(detector.knows("image/png"));
    let (behind_a_tag, others): (Vec<_>, Vec<_>) =
        samples().into_values().flatten().partition(|(mime, _)| *mime == "audio/mpeg");
    for (is_loaded, samples) in [(false, others), (true, behind_a_tag)] {
        for (mime, bytes) in samples {
            assert_eq!(detector.detect_bytes(&bytes).as_str(), mime);
        }
        assert_eq!(detector.whole.get().is_some(), is_loaded);
    }
}

#[test]
fn rules() {
    assert!(MimeRules::All.allows("x/y"));
    let only = MimeRules::only(["image/PNG", "text/plain; charset=utf-8"]);
    assert!(only.allows("image/png") && only.allows("Text/Plain;charset=x"));
    assert!(!only.allows("image/jpeg") && !only.allows(""));
    let but = MimeRules::all_but(["application/x-dosexec", "application/vnd.rar"]);
    assert!(but.allows("image/png"));
    assert!(!but.allows("application/x-dosexec") && !but.allows("application/vnd.rar"));
    assert!(!but.allows("application/vnd.microsoft.portable-executable"), "the newer name");
    assert!(but.allows("application/x-rar"), "no file is of the older name");
    assert!(!MimeRules::only::<&str>([]).allows("image/png"));
}

#[test]
fn what_lies_behind_a_tag_has_its_type_however_large_it_is() {
    // All that is looked at of a file: the shelves take half of the work that there may be.
    let noise = |n: u32| n.wrapping_mul(0x9e37_79b1).rotate_left(9).to_le_bytes()[0];
    for (content, name) in
        [(b"\xff\xfb\x90\x64".to_vec(), "audio/mpeg"), (pe(), "application/x-dosexec")]
    {
        let mut file = [b"ID3\x04\0\0\0\0\0\0".to_vec(), content].concat();
        file.extend((0..u32::try_from(HEAD).unwrap()).map(noise));
        assert_eq!(detect(&file), name);
        assert_eq!(UNTOUCHED.detect_bytes(&file).as_str(), name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_have_a_type(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let name = detect(&bytes);
        prop_assert_eq!(name.split('/').filter(|part| !part.is_empty()).count(), 2);
        prop_assert_eq!(UNTOUCHED.detect_bytes(&bytes).to_string(), name);
    }

    #[test]
    fn damaged_files_have_a_type(
        pick in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let all: Vec<_> = samples().into_values().flatten().collect();
        let mut bytes = pick.get(&all).1.clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        let name = detect(&bytes);
        prop_assert_eq!(name.split('/').filter(|part| !part.is_empty()).count(), 2);
        prop_assert_eq!(UNTOUCHED.detect_bytes(&bytes).to_string(), name);
    }
}

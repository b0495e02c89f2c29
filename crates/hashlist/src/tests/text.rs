//! Text lists.

use super::*;
use ListAction::{Allow, Block};

fn block(content: impl AsRef<[u8]>) -> HashLists<Vec<u8>> {
    read(Block, "list.txt", content).unwrap().1
}

/// Returns the name of the entry for the EICAR test file.
fn name_of_eicar(content: impl AsRef<[u8]>) -> Option<String> {
    let lists = block(content);
    let found = lists.lookup(&eicar()).unwrap();
    assert_eq!((found.action, found.list), (Block, "list.txt"));
    found.name.map(str::to_owned)
}

#[test]
fn all_digests_match() {
    for line in [
        EICAR_SHA256.to_owned(),
        EICAR_SHA256.to_uppercase(),
        EICAR_SHA1.to_owned(),
        format!("{EICAR_SHA1}:68"),
        format!("{EICAR_SHA1}:*"),
        format!("{EICAR_MD5}:68"),
        format!("{}:68", EICAR_MD5.to_uppercase()),
        format!("{EICAR_MD5}:*"),
    ] {
        assert_eq!(name_of_eicar(&line), None, "{line}");
        assert_eq!(name_of_eicar(format!("{line} Eicar-Test")).unwrap(), "Eicar-Test", "{line}");
    }
}

#[test]
fn sizes_are_compared() {
    for digest in [EICAR_SHA1, EICAR_MD5] {
        let lists = block(format!("{digest}:69\n"));
        assert_eq!(lists.lookup(&eicar()), None);
        let found = lists.lookup(&Digests { size: 69, ..eicar() });
        assert!(found.is_some(), "{digest}");
    }
}

#[test]
fn lines_have_names_and_comments() {
    let line = |rest: &str| format!("{EICAR_SHA256}{rest}");
    for (content, name) in [
        (line("\tEicar"), Some("Eicar")),
        (line("  Eicar Test File  "), Some("Eicar Test File")),
        (line(" *eicar.com"), Some("eicar.com")),
        (line(" Trojan #4"), Some("Trojan #4")),
        (line(" # from the incident of May"), None),
        (line("   "), None),
        (format!("  {}", line(" Eicar")), Some("Eicar")),
        (format!("# comment\n\n  # another\n{}\n", line("")), None),
        (format!("# comment\r\n\r\n{}\r\n", line(" Eicar")), Some("Eicar")),
        (format!("\u{feff}{}\n", line(" Eicar")), Some("Eicar")),
        (format!("\u{feff}# comment\n{}", line(" Прuklad")), Some("Прuklad")),
    ] {
        assert_eq!(name_of_eicar(&content).as_deref(), name, "{content:?}");
    }
}

#[test]
fn names_may_have_another_encoding() {
    let content = [EICAR_SHA256.as_bytes(), b" M\xfcll"].concat();
    assert_eq!(name_of_eicar(content).unwrap(), "M\u{fffd}ll");
}

#[test]
fn invalid_lines_are_errors() {
    use LineProblem::{InvalidSize, Md5WithoutSize, NoDigest, Sha256WithSize};
    for (line, problem) in [
        (EICAR_MD5.to_owned(), Md5WithoutSize),
        (format!("{EICAR_MD5} 68"), Md5WithoutSize),
        (format!("{EICAR_MD5}:"), InvalidSize),
        (format!("{EICAR_MD5}:0"), InvalidSize),
        (format!("{EICAR_MD5}:+68"), InvalidSize),
        (format!("{EICAR_MD5}:-1"), InvalidSize),
        (format!("{EICAR_MD5}:68KiB"), InvalidSize),
        (format!("{EICAR_MD5}:18446744073709551616"), InvalidSize),
        (format!("{EICAR_MD5}:68:Eicar"), InvalidSize),
        (format!("{EICAR_SHA1}:68:Eicar"), InvalidSize),
        (format!("{EICAR_SHA256}:68"), Sha256WithSize),
        (format!("{EICAR_SHA256}:*:Eicar"), Sha256WithSize),
        (EICAR_SHA256[1..].to_owned(), NoDigest { found: 63 }),
        (format!("{EICAR_SHA256}0"), NoDigest { found: 65 }),
        (format!("{EICAR_SHA256}{EICAR_SHA256}"), NoDigest { found: 128 }),
        (format!("x{}", &EICAR_SHA256[1..]), NoDigest { found: 64 }),
        (format!("sha256:{EICAR_SHA256}"), NoDigest { found: 6 }),
        (format!("\"{EICAR_SHA256}\",\"Eicar\""), NoDigest { found: 74 }),
        (format!("\u{feff}{EICAR_SHA256}"), NoDigest { found: 67 }),
        ("<html>".to_owned(), NoDigest { found: 6 }),
        (":".to_owned(), NoDigest { found: 0 }),
    ] {
        let content = format!("# comment\r\n{EICAR_SHA256}\n{line}\n{EICAR_SHA256}\n");
        assert_eq!(line_problem(Block, "list.txt", &content), (3, problem), "{line}");
    }
}

#[test]
fn long_lines_are_errors() {
    let longest = format!("{EICAR_SHA256} {}", "x".repeat(4096 - 65));
    for end in ["", "\n", "\r\n"] {
        let name = name_of_eicar(format!("{longest}{end}")).unwrap();
        assert_eq!(name, "x".repeat(128));
        let longer = format!("{longest}x{end}");
        assert_eq!(line_problem(Block, "list.txt", longer), (1, LineProblem::TooLong));
    }
    let endless = format!("\n#{}", "x".repeat(1 << 20));
    assert_eq!(line_problem(Block, "list.txt", endless), (2, LineProblem::TooLong));
}

#[test]
fn allow_lists_accept_only_sha256() {
    let (summary, lists) = read(Allow, "ok", format!("{EICAR_SHA256} test file")).unwrap();
    assert_eq!((summary.used, summary.total), (1, 1));
    let found = lists.lookup(&eicar()).unwrap();
    assert_eq!((found.action, found.list, found.name), (Allow, "ok", Some("test file")));
    for line in [EICAR_SHA1.to_owned(), format!("{EICAR_SHA1}:68"), format!("{EICAR_MD5}:68")] {
        let content = format!("{EICAR_SHA256}\n{line}\n");
        assert_eq!(line_problem(Allow, "ok", content), (2, LineProblem::NotAllowable), "{line}");
    }
}

#[test]
fn other_files_are_errors() {
    for (content, problem) in [
        (b"PK\x03\x04 and more".as_slice(), FileProblem::Compressed),
        (b"\x1f\x8b\x08", FileProblem::Compressed),
        (b"BZh9", FileProblem::Compressed),
        (b"\xfd7zXZ\0", FileProblem::Compressed),
        (b"7z\xbc\xaf\x27\x1c", FileProblem::Compressed),
        (b"\xff\xfe2\x007\x00", FileProblem::Utf16),
        (b"\xfe\xff\x002\x007", FileProblem::Utf16),
    ] {
        assert_eq!(file_problem(Block, "list.txt", content), problem);
    }
    for name in ["a.mdb", "a.MSB", "a.ndb", "a.fp", "a.ign2", "a.yara"] {
        assert_eq!(file_problem(Block, name, ""), FileProblem::OtherSignatures, "{name}");
    }
}

#[test]
fn empty_lists_are_valid() {
    for content in ["", "\n", "\u{feff}", "# nothing yet\r\n", "# nothing yet"] {
        let (summary, lists) = read(Block, "list", content).unwrap();
        assert_eq!((summary.used, summary.total), (0, 0), "{content:?}");
        assert_eq!(lists.lookup(&eicar()), None);
    }
}

#[test]
fn empty_file_is_not_blocked() {
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let sha1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
    let md5 = "d41d8cd98f00b204e9800998ecf8427e";
    let content = format!("{sha256}\n{EICAR_SHA256}\n{sha1}\n{md5}:*\n");
    let (summary, lists) = read(Block, "list", content).unwrap();
    assert_eq!((summary.used, summary.total), (1, 4));
    let mut empty = digests_of(&digest(sha256), 0);
    empty.sha1 = digests_of(&digest(sha1), 0).sha1;
    empty.md5 = digests_of(&digest(md5), 0).md5;
    assert_eq!(lists.lookup(&empty), None);
    // An allow list may have it.
    let (_, lists) = read(Allow, "list", sha256).unwrap();
    assert_eq!(lists.lookup(&empty).unwrap().action, Allow);
}

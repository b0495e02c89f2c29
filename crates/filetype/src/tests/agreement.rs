//! Files for which the rules, as `pure-magic` evaluates them, would yield another type than `file`.

use super::{PLAIN_TEXT, detect, samples};
use crate::{MimeRules, can_detect, names::UNKNOWN};

#[test]
fn detects_types_of_cases() {
    for (content, mime) in [
        // Names of entries that end with `.png`, after the first name.
        (
            include_bytes!("cases/t-apk-with-png.apk").as_slice(),
            "application/vnd.android.package-archive",
        ),
        (include_bytes!("cases/t-odt-octet.odt"), "application/vnd.oasis.opendocument.text"),
        (include_bytes!("cases/t-zip-photos.zip"), "application/zip"),
        // A line that begins with "C ".
        (include_bytes!("cases/t-list-abc.txt"), PLAIN_TEXT),
        (include_bytes!("cases/t-srt.srt"), "application/x-subrip"),
    ] {
        assert_eq!(detect(content), mime);
    }
}

#[test]
fn searches_for_expressions_only_before_nul() {
    let zip = samples::zip;
    for other in ["a.png", "readme.md", "[trash]"] {
        for (first, mime) in [
            (zip("mimetype", "application/epub+zip"), "application/epub+zip"),
            (
                zip("mimetype", "application/vnd.oasis.opendocument.text"),
                "application/vnd.oasis.opendocument.text",
            ),
            (zip("a.txt", "hello"), "application/zip"),
        ] {
            assert_eq!(detect([first, zip(other, "x"), zip("b", "x")].concat()), mime, "{other}");
        }
    }
    // The name of the first entry matches the regular expression, but the archive is not an Office
    // document.
    assert_eq!(
        detect([zip("a.png", "x"), zip("b.png", "x"), zip("c.png", "x")].concat()),
        "application/zip"
    );
}

#[test]
fn archives_that_begin_with_a_picture_have_the_type_of_their_marks() {
    let entries = [samples::zip("a.png", "x"), samples::zip("b.png", "x")].concat();
    let with_end = |block: &str| {
        let mut archive = entries.clone();
        archive.extend(block.bytes());
        let directory = u32::try_from(archive.len()).unwrap();
        archive.extend(b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0");
        archive.extend(directory.to_le_bytes());
        archive.extend([0; 2]);
        archive
    };
    assert_eq!(detect(with_end("APK Sig Block 42")), "application/vnd.android.package-archive");
    assert_eq!(detect(with_end("APK Sig Block 43")), "application/zip");
    // The length of the extra field, and the field.
    let as_jar = |mut archive: Vec<u8>| {
        archive[28] = 4;
        archive.splice(35..35, *b"\xfe\xca\0\0");
        archive
    };
    assert_eq!(detect(as_jar(entries.clone())), "application/java-archive");
    // The directory begins 4 bytes later.
    let mut signed = as_jar(with_end("APK Sig Block 42"));
    let offset = signed.len() - 6;
    signed[offset] += 4;
    assert_eq!(detect(&signed), "application/vnd.android.package-archive");
    signed.splice(30..35, *b"x.txt");
    assert_eq!(detect(&signed), "application/vnd.android.package-archive");
}

#[test]
fn matches_negated_expressions_only_without_match() {
    assert_eq!(detect("C comment\n      PROGRAM A\n      END\n"), "text/x-fortran");
    assert_eq!(detect("C comment\nPROGRAM A\nEND\n"), PLAIN_TEXT);
    assert_eq!(detect("Grades\nA excellent\nC fair\n"), PLAIN_TEXT);
    // Only the first 100 lines count.
    let program = "      X = 1\n".repeat(100);
    assert_eq!(detect(format!("C comment\n{program}END\n")), "text/x-fortran");
    assert_eq!(detect(format!("C comment\nEND\n{program}")), PLAIN_TEXT);
}

#[test]
fn matches_expressions_that_span_lines() {
    assert_eq!(detect("1\n00:00:01,000 --> 00:00:02,000\nHello\n"), "application/x-subrip");
    assert_eq!(detect("1\r\n00:00:01,000 --> 00:00:02,000\r\nHello\r\n"), "application/x-subrip");
    assert_eq!(detect("2\n00:00:01,000 --> 00:00:02,000\nHello\n"), PLAIN_TEXT);
    // The last of the bytes that a rule examines is not part of the text: here the blank of `P3 `.
    assert_eq!(detect("MP3\n===\n"), PLAIN_TEXT);
}

#[test]
fn detects_csv_as_file_does() {
    assert_eq!(detect("a,b,c\n1,2,3\n4,5,6\n"), "text/csv");
    assert_eq!(detect("a,\"b\nb,\",c\n1,2,3\n4,5,6\n"), "text/csv");
    assert_eq!(detect("a,b\n1,2\n4,5\n"), PLAIN_TEXT);
    assert_eq!(detect("a,b,c\n1,2,3\n4,5\n"), PLAIN_TEXT);
    assert_eq!(detect("a,b,c\n1,2,3"), PLAIN_TEXT);
}

#[test]
fn detects_json_only_to_the_end() {
    for json in ["{}", "[]\n", "[1, 2]", "{\"a\": 1}\n"] {
        assert_eq!(detect(json), "application/json", "{json}");
    }
    assert_eq!(detect("{\"a\":1}\n{\"b\":2}\n"), "application/x-ndjson");
    assert_eq!(detect("{\"a\":1}\nand more\n"), PLAIN_TEXT);
    assert_eq!(detect("{\"a\":1"), PLAIN_TEXT);
}

#[test]
fn detects_mail_drawings_and_encrypted_documents() {
    assert_eq!(
        detect("Received: from a.example by b.example; 1 Jan 2026\nFrom: a@a.example\n\nHello\n"),
        "message/rfc822"
    );
    assert_eq!(detect("  0\nSECTION\n  2\nHEADER\n  9\n$ACADVER\n"), "image/vnd.dxf");
    for (streams, mime) in [
        (["EncryptedPackage", "WordDocument"], "application/encrypted"),
        (["WordDocument", "EncryptedPackage"], "application/encrypted"),
        (["WordDocument", "Book"], "application/msword"),
        (["__properties_version1.0", "__nameid_version1.0"], "application/vnd.ms-outlook"),
        (["__nameid_version1.0", "__substg1.0_00020102"], "application/vnd.ms-outlook"),
        (["Unknown", "Other"], "application/x-ole-storage"),
    ] {
        assert_eq!(detect(samples::ole(&streams)), mime);
        assert!(can_detect(mime), "{mime}");
    }
}

#[test]
fn lists_match_names_of_other_releases() {
    for (older, newer) in [
        ("text/xml", "application/xhtml+xml"),
        ("text/plain", "application/x-subrip"),
        ("application/zip", "application/java-archive"),
        ("application/vnd.oasis.opendocument.database", "application/vnd.oasis.opendocument.base"),
    ] {
        assert!(MimeRules::only([older]).allows(newer) && MimeRules::only([newer]).allows(newer));
        assert!(!MimeRules::all_but([older]).allows(newer));
        assert!(MimeRules::all_but([newer]).allows(older), "a newer name is more specific");
        assert!(!MimeRules::only([UNKNOWN]).allows(newer));
    }
}

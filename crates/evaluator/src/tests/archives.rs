//! Programs whose first bytes vary: ELF with unusual identification, and archives behind other bytes.

use super::{assert_matches, zip::zip};

/// Returns the start of an ELF program with changed bytes.
fn elf(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    for (offset, value) in changes {
        program[*offset] = *value;
    }
    program.resize(1024, 0);
    program
}

#[test]
fn linux_programs_are_found_without_what_linux_does_not_check() {
    let picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    for changes in [
        &[][..],
        &[(4, 0)],
        &[(5, 0)],
        &[(6, 0)],
        &[(4, 0), (5, 0), (6, 0)],
        &[(7, 3), (8, 1), (9, 255), (15, 255)],
    ] {
        assert_matches("ELF", &elf(changes), &["Linux_Program"]);
        let disguised = [&picture[..], &elf(changes)].concat();
        assert_matches("disguised", &disguised, &["Disguised_Program"]);
    }
    // Motorola's byte order.
    assert_matches("ELF", &elf(&[(5, 2), (16, 0), (17, 2), (18, 0), (19, 4)]), &["Linux_Program"]);
    assert_matches("a text", b"\x7fELF is the magic number of programs.", &[]);
}

#[test]
fn java_archives_are_found_behind_other_bytes() {
    let archive =
        zip(&[("META-INF/MANIFEST.MF", b"Manifest-Version: 1.0"), ("a/Main.class", b"x")]);
    for prefix in ["junk".to_owned(), "\0\0".to_owned(), "<html>".to_owned(), "x".repeat(70_000)] {
        assert_matches("prefix", &[prefix.as_bytes(), &archive].concat(), &["Java_Program"]);
    }
    let with_script = [b"#!/bin/sh\nexec java -jar $0\n", &archive[..]].concat();
    assert_matches("script", &with_script, &["Java_Program", "Script_With_Interpreter"]);
    let mut with_comment = archive.clone();
    let length = with_comment.len();
    with_comment[length - 2] = 3;
    with_comment.extend(b"abc");
    assert_matches("comment", &[b"junk", &with_comment[..]].concat(), &["Java_Program"]);
    // An archive in the middle of a file, such as a member of an archive without compression.
    let member = [&b"junk"[..], &archive, &[0; 1024]].concat();
    assert_matches("member", &member, &[]);
    let sources = zip(&[("META-INF/MANIFEST.MF", b"Manifest-Version: 1.0"), ("a/Main.java", b"x")]);
    assert_matches("sources", &[b"junk", &sources[..]].concat(), &[]);
}

#[test]
fn launchers_are_found_in_archives_behind_other_bytes() {
    let archive = zip(&[("readme.txt", b"hello"), ("photo.lnk", b"x")]);
    assert_matches("prefix", &[b"junk", &archive[..]].concat(), &["Archive_With_Launcher"]);
}

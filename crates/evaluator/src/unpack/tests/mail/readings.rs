//! Messages that programs read differently. All readings are examined.

use super::writer::{base64, message, multipart, quoted_printable};
use crate::{
    report::NoteKind,
    unpack::tests::{collect, payload},
};

/// Header of a part in base64.
const BASE64: &str = "Content-Transfer-Encoding: base64\n";

#[test]
fn conflicting_fields_are_inconsistent() {
    let encoded = base64(&payload());
    let multipart = String::from_utf8(multipart("b", &[format!("{BASE64}\n{encoded}")])).unwrap();
    let multipart = multipart.split_once('\n').unwrap().1;
    let types = ["multipart/mixed; boundary=b", "multipart/mixed; boundary=c", "text/plain"];
    for (first, last) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
        let rest =
            format!("Content-Type: {}\nContent-Type: {}\n{multipart}", types[first], types[last]);
        check(&rest, first + last == 2);
        let both = format!("Content-Type: {}; boundary={}\n{multipart}", types[0], "c");
        check(&both, false);
    }
    let quoted = quoted_printable(&payload());
    for (first, last, body) in [
        ("base64", "7bit", &encoded),
        ("7bit", "base64", &encoded),
        ("7bit", "quoted-printable", &quoted),
    ] {
        let fields =
            format!("Content-Transfer-Encoding: {first}\nContent-Transfer-Encoding: {last}\n");
        check(&format!("{fields}\n{body}"), true);
    }
    let comment = format!(
        "Content-Type: multipart/mixed; boundary=b(c)\n{}",
        multipart.replace("--b", "--b(c)")
    );
    check(&comment, false);
}

/// Checks that the payload is found, and, if it must be, that the readings are noted.
fn check(rest: &str, is_inconsistent: bool) {
    let collected = collect(&message(rest.as_bytes()));
    assert!(collected.has_payload(), "{rest}\n{collected:?}");
    if is_inconsistent {
        assert!(collected.note(NoteKind::Inconsistent).is_some(), "{rest}\n{collected:?}");
    }
}

#[test]
fn equal_fields_are_consistent() {
    let headers = [
        "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: 8BIT\n",
        "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: quoted-printable\n",
        "Content-Type: text/plain\nContent-Type: text/plain; charset=utf-8 (a)\n",
        "Content-Type: text/plain; boundary=a\nContent-Type: text/html; boundary=b\n",
    ];
    for header in headers {
        let collected = collect(&message(format!("{header}\nhello\n").as_bytes()));
        assert!(collected.notes.is_empty(), "{header}{collected:?}");
    }
}

/// Lines that are a delimiter for some programs, and ignored in base64 by others.
#[test]
fn uncertain_delimiters_do_not_hide_a_part() {
    let encoded = base64(&payload());
    let (start, end) = encoded.split_at(30);
    for line in ["--=_!\n", "--!=_!\n", "\r--=_\r", "--=_--!\n"] {
        let part = format!("{BASE64}\n{start}\n{line}{end}");
        for boundary in ["=_", "!"] {
            let rest = multipart(boundary, &[part.as_bytes()]);
            check(&String::from_utf8(rest).unwrap(), false);
        }
    }
    let rest = multipart("=_", &[format!("{BASE64}\n{start}\n--=__\n{end}")]);
    let last = String::from_utf8(rest).unwrap().replace("boundary=", "boundary=\"=__\"; boundary=");
    check(&last, true);
}

#[test]
fn ends_at_padding_are_examined() {
    let first = base64(b"a");
    let collected = collect(&message(format!("{BASE64}\n{first}{}", base64(b"bc")).as_bytes()));
    let bodies: Vec<_> = collected.objects[1..].iter().map(|(_, bytes)| bytes.as_slice()).collect();
    assert_eq!(bodies, [&b"abc"[..], b"a"]);
    assert!(collected.notes.is_empty(), "{collected:?}");
}

#[test]
fn uncertain_separators_do_not_hide_a_message() {
    let separator = "From a Mon Jan 1 00:00:00 2024\n";
    let first = String::from_utf8(message(b"\nAB\nFrom a\nA: b\n")).unwrap();
    let mailbox = format!("{separator}{first}\n{separator}A: b\n\n");
    let collected = collect(mailbox.as_bytes());
    assert!(collected.paths().contains(&"messages > part 1"), "{collected:?}");
    assert_eq!(collected.paths().iter().filter(|path| path.starts_with("message ")).count(), 4);
}

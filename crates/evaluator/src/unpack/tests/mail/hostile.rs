//! Messages that cost much time, memory or stack.

use std::time::{Duration, Instant};

use super::writer::{base64, base64_part, message, multipart};
use crate::{
    report::NoteKind,
    unpack::tests::{collect, payload},
};

/// Size of the messages, bytes.
const SIZE: usize = 512 << 10;

/// Returns a text, repeated.
fn repeated(text: impl Fn(usize) -> String) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut index = 0;
    while bytes.len() < SIZE {
        bytes.extend_from_slice(text(index).as_bytes());
        index += 1;
    }
    bytes
}

/// Returns the ends of messages with costly structures, and their descriptions.
fn structures() -> Vec<(&'static str, Vec<u8>)> {
    let long = "x".repeat(900);
    let nested = |index| format!("{MULTIPART}{index}\n\n--b{index}\n");
    let prefix = |index| format!("{MULTIPART}{long}{index}\n\n--b{long}{index}\n--b{long}\n");
    vec![
        ("multiparts", repeated(nested)),
        ("prefixes", repeated(prefix)),
        (
            "absent boundaries",
            in_multipart("--b\nContent-Type: multipart/mixed; boundary=z\n\nx\n"),
        ),
        (
            "boundaries to guess",
            in_multipart("--b\nContent-Type: multipart/mixed\n\n--z\nContent-A: b\n\nx\n"),
        ),
        ("messages", repeated(|_| "Content-Type: message/rfc822\n\n".to_owned())),
        ("delimiters", in_multipart("--b\n")),
        ("last delimiters", in_multipart("--b--\nx\n")),
        ("separators", repeated(|_| "From a 00:00\nA: b\n\n".to_owned())),
        ("uncertain separators", repeated(|_| "From a 00:00\nA: b\n".to_owned())),
    ]
}

/// Returns the ends of messages with costly fields and bodies, and their descriptions.
fn fields_and_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let after =
        |start: &str, text: &str| [start.as_bytes(), &repeated(|_| text.to_owned())].concat();
    let parameters = repeated(|index| format!("; name*{index}*=x;a{index}*1=x"));
    let names = "--b\nContent-Disposition: a; filename*0=a; filename*1=b\n\nx\n";
    let quoted_printable = "Content-Transfer-Encoding: quoted-printable\n\n=";
    vec![
        ("fields", after("", "A: b\n")),
        ("types", after("", "Content-Type: multipart/mixed; boundary=(b\n")),
        ("parameters", [b"Content-Type: a/b".to_vec(), parameters].concat()),
        ("comments", after("Content-Type: ", "(")),
        ("names", in_multipart(names)),
        ("files", after("\n", "begin 644 a\n#0V%T\n")),
        ("returns", after(&format!("{MULTIPART}\n\n"), "\r")),
        ("spaces in escapes", after(quoted_printable, "= ")),
        ("spaces", after(quoted_printable, " ")),
    ]
}

/// Type of a multipart.
const MULTIPART: &str = "Content-Type: multipart/mixed; boundary=b";

fn in_multipart(text: &str) -> Vec<u8> {
    [format!("{MULTIPART}\n\n").into_bytes(), repeated(|_| text.to_owned())].concat()
}

/// A part of a second in a release build for 5 MB.
#[test]
fn hostile_messages_take_linear_time() {
    for (name, rest) in structures().into_iter().chain(fields_and_bodies()) {
        let rest = if name.contains("separators") { rest } else { message(&rest) };
        let start = Instant::now();
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let notes = thread.spawn(move || collect(&rest).notes).unwrap().join().unwrap();
        let elapsed = start.elapsed();
        println!("{name}: {elapsed:?} {notes:?}");
        // Quadratic time takes a minute.
        assert!(elapsed < Duration::from_secs(10), "{name}: {elapsed:?}");
    }
}

#[test]
fn multiparts_beyond_the_limit_are_noted() {
    let deep = |levels: usize| {
        let part = base64_part("a", &payload());
        message(&(0..levels).fold(part, |part, level| multipart(&format!("l{level}"), &[part])))
    };
    let collected = collect(&deep(64));
    assert!(collected.has_payload() && collected.notes.is_empty(), "{collected:?}");
    let collected = collect(&deep(65));
    assert!(collected.note(NoteKind::Limit).is_some(), "{collected:?}");
}

#[test]
fn messages_in_messages_end_at_the_depth() {
    let deep = |levels: usize| {
        let innermost = message(
            format!("Content-Transfer-Encoding: base64\n\n{}", base64(&payload())).as_bytes(),
        );
        (1..levels).fold(innermost, |inner, _| {
            message(&[b"Content-Type: message/rfc822\n\n", &inner[..]].concat())
        })
    };
    let collected = collect(&deep(12));
    assert!(collected.has_payload() && collected.notes.is_empty(), "{collected:?}");
    let collected = collect(&deep(13));
    assert!(!collected.has_payload() && collected.note(NoteKind::Limit).is_some(), "{collected:?}");
}

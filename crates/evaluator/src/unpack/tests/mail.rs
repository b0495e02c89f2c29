//! Mail. The writers' output was read by Python's `email` and `mailbox` modules.

mod hostile;
mod readings;
mod samples;
mod writer;

use proptest::{collection::vec, prelude::*};

pub(crate) use samples::samples;
use writer::multipart;
pub(crate) use writer::{base64, message, usual};

use super::{collect, payload};
use crate::{report::NoteKind, unpack::document::mail::matches};

#[test]
fn samples_give_what_is_expected() {
    for sample in samples() {
        assert!(matches(&sample.bytes), "{}", sample.name);
        sample.check();
    }
}

#[test]
fn attachments_have_their_names() {
    let names = [
        ("Content-Disposition: attachment; filename=\"a b.exe\"", "a b.exe"),
        ("Content-Disposition: attachment;\n filename=a.exe", "a.exe"),
        ("Content-Type: application/x-a; name=\"a.exe\"", "a.exe"),
        ("Content-Disposition: attachment; filename*=utf-8''%C3%A4.exe", "ä.exe"),
        ("Content-Disposition: attachment; filename*=iso-8859-1''%E4.exe", "ä.exe"),
        (
            "Content-Disposition: attachment; filename*0*=utf-8''a%20; filename*1=\"b.exe\"",
            "a b.exe",
        ),
        ("Content-Disposition: attachment; filename=\"=?utf-8?B?w6QuZXhl?=\"", "ä.exe"),
        ("Content-Disposition: attachment; filename=\"=?iso-8859-1?Q?=E4.exe?=\"", "ä.exe"),
        ("Content-Location: http://a.example/b.js?c=d", "http://a.example/b.js"),
        ("X-Other: a", "part 1"),
    ];
    for (header, name) in names {
        let part = format!("{header}\nContent-Transfer-Encoding: base64\n\n{}", base64(&payload()));
        let collected = collect(&message(&multipart("b", &[part.as_bytes()])));
        assert_eq!(collected.paths(), [name], "{header}");
    }
}

#[test]
fn names_with_other_extensions_are_reported() {
    let header =
        "Content-Type: text/plain; name=a.txt\nContent-Disposition: attachment; filename=a.exe";
    for (encoding, body) in [("8bit", payload()), ("base64", base64(&payload()).into_bytes())] {
        let header = format!("{header}\nContent-Transfer-Encoding: {encoding}\n\n");
        let part = [header.as_bytes(), &body].concat();
        let collected = collect(&message(&multipart("b", &[&part])));
        assert_eq!(collected.paths(), ["a.exe", "a.txt"], "{encoding}");
        assert!(collected.objects[1..].iter().all(|(_, bytes)| *bytes == payload()));
    }
}

#[test]
fn bodies_and_nested_messages_are_objects() {
    let inner = message(b"Content-Type: text/plain\n\nhello");
    let inner = [&b"Content-Type: message/rfc822\n\n"[..], &inner].concat();
    let parts: [&[u8]; 3] = [b"\nfirst", b"Content-Type: text/html\n\n<p>", &inner];
    let collected = collect(&message(&multipart("b", &parts)));
    assert_eq!(collected.paths(), ["part 1", "part 2", "part 3", "part 3 > part 1"]);
    assert_eq!(collected.objects[1].1, b"first");
    assert_eq!(collected.objects[4].1, b"hello");
}

#[test]
fn other_texts_are_not_mail() {
    let texts: [&[u8]; 14] = [
        b"",
        b"\n\n",
        b"Hello, world.\n\nFrom: a\nTo: b\n",
        b"From here on, it is easy.\nSo: continue.\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nDate: Mon, 1 Jan 2024 00:00:00 GMT\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nFrom: a@a.example\r\n\r\n",
        b"name: build\nfrom: ubuntu\nsteps:\n - run: make\n",
        b"subject: a\nto: b\n",
        b"key: value\nother: value\n",
        b"BEGIN:VCARD\nVERSION:3.0\nEND:VCARD\n",
        b"use std::io;\n\nfn main() {}\n",
        b"{\"from\": \"a@a.example\", \"to\": \"b\"}\n",
        b"Date: 2024-01-01\nServer: nginx\nContent-Type: text/html\n\n",
        b"12:00:01 From: a\n12:00:02 Received: b\n",
    ];
    for text in texts {
        assert!(!matches(text), "{}", text.escape_ascii());
    }
}

#[test]
fn unusual_starts_of_mail_are_recognized() {
    let texts: [&[u8]; 9] = [
        b"\xef\xbb\xbfFrom: a@a.example\nTo: b@b.example\n\nx",
        b"\r\n\r\nSubject: a\nMIME-Version: 1.0\n\nx",
        b"Content-Type: multipart/mixed;\n boundary=b\n\n--b\n",
        b"X-Unknown: a\nContent-Type: multipart/mixed; boundary=b\n\n--b\n",
        b"Content-Transfer-Encoding: base64\n\nAAAA",
        b"From: <Saved by Blink>\nSubject: a\nMIME-Version: 1.0\n",
        b"From a@a.example Mon Jan  1 00:00:00 2024\nSubject: a\n\nx",
        b"Subject: a\rMIME-Version: 1.0\r\rx",
        b"Received: a\nReceived: b\nFrom: a\n\nx",
    ];
    for text in texts {
        assert!(matches(text), "{}", text.escape_ascii());
    }
}

#[test]
fn truncated_mail_is_read_up_to_its_end() {
    for sample in samples().into_iter().filter(|sample| sample.bytes.len() < 3000) {
        for length in (0..sample.bytes.len()).step_by(11) {
            collect(&sample.bytes[..length]);
        }
    }
    let whole = usual(&payload());
    for length in 0..whole.len() {
        assert!(
            collect(&whole[..length]).notes.iter().all(|note| note.kind != NoteKind::Inconsistent)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn accepts_changed_mail(
        index in any::<prop::sample::Index>(),
        edits in vec((any::<prop::sample::Index>(), prop::sample::select(b"\r\n-=;:\" b(/\0\xffA".as_slice())), 0..12),
    ) {
        let samples = samples();
        let mut bytes = samples[index.index(samples.len())].bytes.clone();
        for (position, value) in edits {
            let position = position.index(bytes.len());
            bytes[position] = value;
        }
        collect(&bytes);
    }

    #[test]
    fn accepts_any_structure(lines in vec(prop::sample::select(LINES), 0..40)) {
        collect(&lines.concat());
    }
}

/// Lines of mail, for random messages.
const LINES: &[&[u8]] = &[
    b"From a@b Mon Jan 1 00:00:00 2024\n",
    b"Subject: a\nMIME-Version: 1.0\n",
    b"Content-Type: multipart/mixed; boundary=a\n",
    b"Content-Type: multipart/digest; boundary=\"a b\"; boundary=b\n",
    b"Content-Type: message/rfc822\n",
    b"Content-Type: text/plain; boundary=(b)c\n",
    b"Content-Transfer-Encoding: base64\n",
    b"Content-Transfer-Encoding: quoted-printable\r",
    b"Content-Transfer-Encoding: x-uuencode\n",
    b"Content-Disposition: attachment; filename*0*=a'b'%4; filename*9=\"c\n",
    b" folded\n",
    b"  \n",
    b"\n",
    b"\r\n",
    b"--a\n",
    b"--a--\n",
    b"--b  \r\n",
    b"--ab\r",
    b"--a b--x\n",
    b"begin 644 a\n",
    b"#0V%T\n",
    b"end\n",
    b"QUJD=RA==\n",
    b"a=20=\n",
    b"junk\n",
];

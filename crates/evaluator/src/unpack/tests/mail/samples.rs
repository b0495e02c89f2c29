//! Samples of mail.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};

use super::writer::{
    base64, base64_part, message, multipart, quoted_printable, usual, uuencode, uuencoded_file,
    with_breaks,
};
use crate::{
    report::NoteKind,
    unpack::tests::{ContainerSample, Expected, payload},
};

const BASE64: &str = "Content-Transfer-Encoding: base64";

type Named = Vec<(&'static str, Vec<u8>)>;

pub(crate) fn samples() -> Vec<ContainerSample> {
    let with_payload =
        [ordinary(), fields(), base64_texts(), uuencoded(), boundaries(), structures(), files()];
    let with_payload = with_payload.into_iter().flatten();
    let samples = with_payload.map(|(name, bytes)| ContainerSample::payload(name, bytes));
    samples.chain(without_payload()).collect()
}

/// Returns a message with a single body.
fn body(header: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    message(&[header.as_bytes(), b"\n\n", body.as_ref()].concat())
}

fn ordinary() -> Named {
    let payload = payload();
    let usual = usual(&payload);
    let forwarded = [b"Content-Type: message/rfc822\n\n", &usual[..]].concat();
    let encoded = format!("Content-Type: message/rfc822\n{BASE64}\n\n{}", base64(&usual));
    let inner = multipart("b2", &[base64_part("a.exe", &payload)]);
    let bounce = [b"Content-Type: text/rfc822-headers\n\nSubject: a\n".to_vec(), forwarded.clone()];
    let separator = b"From a@a.example Mon Jan  1 00:00:00 2024\n";
    let hidden = replaced_in_short_lines("", "");
    vec![
        ("eml with base64", usual.clone()),
        ("eml with base64, CRLF", with_breaks(&usual, "\r\n")),
        ("eml with base64, CR", with_breaks(&usual, "\r")),
        ("eml with base64, CR CR LF", with_breaks(&usual, "\r\r\n")),
        ("eml with text", body("Content-Type: text/plain", &payload)),
        ("eml with multiparts", message(&multipart("b1", &[b"\nhello".to_vec(), inner]))),
        ("eml with message", message(&multipart("b3", &[forwarded]))),
        ("eml with encoded message", message(&multipart("b3", &[encoded]))),
        ("eml of a bounce", message(&multipart("b4", &bounce))),
        ("eml after a separator", [separator, &usual[..]].concat()),
        ("eml after a continuation", [b" x\n", &hidden[..]].concat()),
        ("eml after a continued field", [b"\tx: y\n", &hidden[..]].concat()),
        ("eml after a field without name", [b": x\n", &hidden[..]].concat()),
        ("eml after a long name", [&[b'n'; 1000][..], b": x\n", &hidden[..]].concat()),
        ("eml after many fields", [&b"X-A: b\n".repeat(60_000)[..], &hidden[..]].concat()),
        ("eml after empty lines", [b"\xef\xbb\xbf\r\n\n", &usual[..]].concat()),
    ]
}

/// Fields of transfer encodings.
fn fields() -> Named {
    let text = base64(&payload());
    let quoted = quoted_printable(&payload());
    let lenient = quoted.replace("=\n", "= \t\r\n").to_lowercase();
    let quoted_field = "Content-Transfer-Encoding: quoted-printable";
    vec![
        ("quoted-printable", body(quoted_field, quoted)),
        ("quoted-printable in small letters with spaces", body(quoted_field, lenient)),
        ("comment", body("Content-Transfer-Encoding: (a) Base64 ; b", &text)),
        ("quotes", body("Content-Transfer-Encoding: \"BASE64\"", &text)),
        ("folded field", body("Content-Transfer-Encoding:\n\tbase64", &text)),
        ("space before the colon", body("Content-Transfer-Encoding : base64", &text)),
    ]
}

fn base64_texts() -> Named {
    let payload = payload();
    let text = base64(&payload);
    let (first, second) = payload.split_at(4);
    let spaces: Vec<String> = text.chars().map(|character| format!("{character} ")).collect();
    let base64_body = |encoded: &str| body(BASE64, encoded);
    vec![
        ("base64 with other characters", base64_body(&text.replace('n', "\u{fc}n!-"))),
        ("base64 without padding", base64_body(text.trim_end_matches(['=', '\n']))),
        ("base64 in one line", base64_body(&text.replace('\n', ""))),
        ("base64 with spaces", base64_body(&spaces.concat())),
        ("base64 in two texts", base64_body(&(base64(first) + &base64(second)))),
        ("base64 before a footer", base64_body(&(text + "-- \nlist footer\n"))),
        ("text that claims base64", body(BASE64, &payload)),
    ]
}

fn uuencoded() -> Named {
    let payload = payload();
    let file = uuencoded_file("a.exe", &payload);
    let field = "Content-Transfer-Encoding: x-uuencode";
    let text = "Content-Type: text/plain";
    vec![
        ("uuencode", body(field, &file)),
        ("uuencode without begin", body(field, uuencode(&payload))),
        ("uuencode in text", body(text, format!("hello\n\n{file}\nbye\n"))),
        ("uuencode in text, CRLF", with_breaks(&body(text, &file), "\r\n")),
        ("uuencode in text without mode", body(text, file.replace("644", ""))),
        ("uuencode in text without end", body(text, file.replace("end\n", ""))),
        ("uuencode in text with spaces", body(text, file.replace('`', " "))),
        ("uuencode in base64", body(BASE64, base64(file.as_bytes()))),
        ("second file in uuencode", body(text, uuencoded_file("a", b"Cat") + &file)),
    ]
}

/// Returns a message with the payload in a multipart, some text replaced. The lines of the base64 are so short that it is
/// not found in text.
fn replaced_in_short_lines(from: &str, to: &str) -> Vec<u8> {
    let text = base64(&payload()).replace('\n', "");
    let lines: Vec<_> = text.as_bytes().chunks(12).collect();
    let part = format!("Content-Type: a/b\n{BASE64}\n\n").into_bytes();
    let part = [part, lines.join(&b'\n')].concat();
    let message = message(&multipart("b1", &[b"\nhello".to_vec(), part]));
    let text = String::from_utf8(message).unwrap();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

/// Returns a message with the payload in a multipart, some text replaced.
fn replaced(from: &str, to: &str) -> Vec<u8> {
    let part = base64_part("a.exe", &payload());
    let message = message(&multipart("b1", &[b"\nhello".to_vec(), part]));
    let text = String::from_utf8(message).unwrap();
    assert!(text.contains(from), "{from}");
    text.replace(from, to).into_bytes()
}

/// Returns a message with another type of its multipart.
fn typed(value: &str) -> Vec<u8> {
    replaced("multipart/mixed; boundary=\"b1\"", value)
}

fn boundaries() -> Named {
    let comments = "multipart/(a\\)b)mixed; (boundary=c;) boundary (d) = (e) b1 (f)";
    let many = "; a=b".repeat(20_000);
    let far = format!("multipart/mixed{many}; boundary=b1\nX-A: b\n\n--decoy\nContent-A: b\n");
    vec![
        ("boundary in sections", typed("multipart/mixed; boundary*1=1; boundary*0=b")),
        ("encoded boundary", typed("multipart/mixed; boundary*=us-ascii'en'b%31")),
        ("boundary after a comment", typed(comments)),
        ("boundary without semicolon", typed("multipart/mixed boundary=b1")),
        ("boundary with a missing quote", typed("multipart/mixed; boundary=\"b1")),
        ("boundary with escapes", typed("multipart/mixed; boundary=\"\\b\\1\"")),
        (
            "boundary after many parameters",
            replaced_in_short_lines("multipart/mixed; boundary=\"b1\"", &far),
        ),
        ("unknown subtype", typed("Multipart/X-Unknown; BOUNDARY=b1; a=b")),
        ("no subtype", typed("multipart; boundary=b1")),
        ("no boundary", typed("multipart/mixed")),
        ("wrong boundary", typed("multipart/mixed; boundary=other")),
        ("folded boundary", typed("multipart/mixed;\n\t\n boundary=\n b1")),
        ("no last delimiter", replaced("--b1--\n", "")),
        ("spaces after delimiters", replaced("--b1\n", "--b1 \t \n")),
        ("text after delimiters", replaced("--b1\n", "--b1 text\n")),
        ("no MIME-Version", replaced("MIME-Version: 1.0\n", "")),
    ]
}

fn structures() -> Named {
    let part = [base64_part("a.exe", &payload())];
    let body_of = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let plain = body_of(&multipart("b2", &part));
    let (field, parts) = plain.split_once("\n\n").unwrap();
    let encoded = format!("{BASE64}\n{field}\n\n{}", base64(parts.as_bytes()));
    let same = multipart("b1", &[b"\na".to_vec(), multipart("b1", &part)]);
    let [mut deep] = part;
    for level in 0..30 {
        deep = multipart(&format!("level{level}"), &[deep]);
    }
    let quoted = quoted_printable(&payload());
    let nested = body_of(&body("Content-Transfer-Encoding: quoted-printable", quoted));
    let hello = "\n\n--b1\n\nhello";
    let epilogue = [replaced("--b1--", "--b1--"), nested.clone().into_bytes()].concat();
    vec![
        ("multipart in base64", message(&multipart("b1", &[encoded]))),
        ("multiparts with the same boundary", message(&same)),
        ("30 multiparts", message(&deep)),
        ("message before the first part", replaced(hello, &format!("\n\n{nested}{hello}"))),
        ("message after the last part", epilogue),
        ("part after the last delimiter", replaced("hello\n--b1", "hello\n--b1--\n--b1")),
        ("part without an empty line", replaced("a.exe\"\n\n", "a.exe\"\n")),
        ("part with a line in the header", replaced("a.exe\"\n\n", "a.exe\"\nno field\n\n")),
        ("part after a field without name", replaced_in_short_lines("64\n\n", "64\n: y\n")),
        ("part after a line of spaces", replaced("a.exe\"\n\n", "a.exe\"\n  \n")),
    ]
}

fn files() -> Named {
    let usual = usual(&payload());
    let plain = message(b"\nhello\n>From b\n");
    let together = [SEPARATOR, &plain[..], SEPARATOR, &usual].concat();
    let archive = format!(
        "From: <Saved by Blink>\nSnapshot-Content-Location: https://a.example/\nMIME-Version: 1.0\n\
         Content-Type: multipart/related;\n\ttype=\"text/html\";\n\tboundary=\"----b----\"\n\n\n\
         ------b----\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\
         Content-Location: https://a.example/\n\n<html>=20\n\
         ------b----\nContent-Type: application/x-a\n{BASE64}\n\
         Content-Location: https://a.example/a.exe\n\n{}\n------b------\n",
        base64(&payload()),
    );
    let part = String::from_utf8(active_mime_part(0x32)).unwrap();
    vec![
        ("mbox, first message", mailbox(&[&usual, &plain])),
        ("mbox, last message", mailbox(&[&plain, &plain, &usual])),
        ("mbox, CRLF", with_breaks(&mailbox(&[&plain, &usual]), "\r\n")),
        ("mbox without empty lines", together),
        ("mht", with_breaks(archive.as_bytes(), "\r\n")),
        (
            "ActiveMime in text",
            body("Content-Type: text/plain", part.rsplit("\n\n").next().unwrap()),
        ),
        ("mht with ActiveMime", message(&multipart("b1", &[active_mime_part(0x32)]))),
        ("mht with another ActiveMime", message(&multipart("b1", &[active_mime_part(0x22a)]))),
    ]
}

const SEPARATOR: &[u8] = b"From a@a.example Mon Jan  1 00:00:00 2024\n";

fn mailbox(messages: &[&[u8]]) -> Vec<u8> {
    messages.iter().flat_map(|message| [SEPARATOR, *message, b"\n"].concat()).collect()
}

/// Returns a part with an `ActiveMime` file. The compressed data starts at an offset, in bytes.
fn active_mime_part(offset: usize) -> Vec<u8> {
    let mut file = b"ActiveMime\0\0\x01\xf0\x04\0\0\0\xff\xff\xff\xff".to_vec();
    file.resize(offset, 0);
    let mut encoder = ZlibEncoder::new(file, Compression::default());
    encoder.write_all(&payload()).unwrap();
    let header = format!(
        "Content-Location: file:///C:/x/editdata.mso\nContent-Type: application/x-mso\n{BASE64}\n\n"
    );
    (header + &base64(&encoder.finish().unwrap())).into_bytes()
}

fn without_payload() -> Vec<ContainerSample> {
    let encrypted = "Content-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=b\n\n\
         --b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n--b\nContent-Type: application/octet-stream\n\n\
         -----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n--b--\n";
    let enveloped =
        "Content-Type: application/pkcs7-mime; name=smime.p7m; smime-type=enveloped-data";
    let partial = "Content-Type: message/partial; id=a; number=2; total=3";
    let mso = "QWN0aXZlTWltZQAAAfAEAAAA/////wAA\n";
    let plain = message(b"\nhello\n>From b\n");
    let sample = |name: &str, bytes, expected| ContainerSample::new(name, bytes, expected);
    let note = |name: &str, bytes, kind| ContainerSample::new(name, bytes, Expected::Note(kind));
    vec![
        sample("eml without payload", usual(b"harmless"), Expected::Clean),
        sample("mbox without payload", mailbox(&[&plain, &plain]), Expected::Clean),
        note("base64 that is not", body(BASE64, "\n#!\n"), NoteKind::Unreadable),
        note(
            "uuencode that is not",
            body("Content-Transfer-Encoding: x-uuencode", "~~~\n"),
            NoteKind::Unreadable,
        ),
        note("PGP message", message(encrypted.as_bytes()), NoteKind::Encrypted),
        note("S/MIME message", body(enveloped, "AAAA"), NoteKind::Encrypted),
        note("message in several files", body(partial, "AAAA"), NoteKind::Unreadable),
        note("ActiveMime without data", body(BASE64, mso), NoteKind::Unreadable),
    ]
}

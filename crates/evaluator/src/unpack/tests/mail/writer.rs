//! Writers of mail.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes base64 in lines of 76 characters.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(57) {
        for group in line.chunks(3) {
            for (index, value) in sextets(group).into_iter().enumerate() {
                let character = ALPHABET[usize::from(value)];
                text.push(if index > group.len() { '=' } else { character.into() });
            }
        }
        text.push('\n');
    }
    text
}

/// Encodes quoted-printable, each byte as an escape, in lines of 75 characters.
pub(super) fn quoted_printable(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value)]);
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index % 25 == 0 {
            text.push_str("=\n");
        }
        text.extend(['=', digit(byte >> 4), digit(byte & 15)]);
    }
    text
}

/// Returns the bits of up to three bytes in groups of six.
fn sextets(group: &[u8]) -> [u8; 4] {
    let byte = |index: usize| group.get(index).copied().unwrap_or_default();
    let (first, second, third) = (byte(0), byte(1), byte(2));
    [first >> 2, (first & 3) << 4 | second >> 4, (second & 15) << 2 | third >> 6, third & 63]
}

/// Encodes uuencoded lines.
pub(super) fn uuencode(bytes: &[u8]) -> String {
    let character = |value: u8| char::from(if value == 0 { b'`' } else { value + b' ' });
    let mut text = String::new();
    for line in bytes.chunks(45) {
        text.push(character(u8::try_from(line.len()).unwrap()));
        text.extend(line.chunks(3).flat_map(sextets).map(character));
        text.push('\n');
    }
    text + "`\n"
}

/// Returns a uuencoded file with its begin and end.
pub(super) fn uuencoded_file(name: &str, bytes: &[u8]) -> String {
    format!("begin 644 {name}\n{}end\n", uuencode(bytes))
}

/// Returns a part with a body in base64.
pub(super) fn base64_part(name: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!(
        "Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\
         Content-Disposition: attachment; filename=\"{name}\"\n\n"
    );
    (header + &base64(bytes)).into_bytes()
}

/// Returns the type and body of a multipart. Parts contain their headers.
pub(super) fn multipart(boundary: &str, parts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes =
        format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\n\n").into_bytes();
    for part in parts {
        bytes.extend_from_slice(format!("--{boundary}\n").as_bytes());
        bytes.extend_from_slice(part.as_ref());
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(format!("--{boundary}--\n").as_bytes());
    bytes
}

/// Returns a message. `rest` is the end of the header, and the body.
pub(crate) fn message(rest: &[u8]) -> Vec<u8> {
    let header = b"From: Alice <alice@a.example>\nTo: bob@b.example\nSubject: test\n\
        Date: Mon, 01 Jan 2024 00:00:00 +0000\nMessage-ID: <1@a.example>\nMIME-Version: 1.0\n";
    [header, rest].concat()
}

/// Returns a message with the payload in base64 in a multipart.
pub(crate) fn usual(bytes: &[u8]) -> Vec<u8> {
    message(&multipart(
        "b1",
        &[b"Content-Type: text/plain\n\nhello\n".to_vec(), base64_part("a.txt", bytes)],
    ))
}

/// Returns text with other line breaks.
pub(super) fn with_breaks(bytes: &[u8], line_break: &str) -> Vec<u8> {
    String::from_utf8(bytes.to_vec()).unwrap().replace('\n', line_break).into_bytes()
}

//! Files in text.

use proptest::{collection::vec, prelude::*};

use super::{ContainerSample, Expected, collect, payload, streams::gzip, zip::stored_zip};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes in base64.
pub(super) fn base64(content: &[u8]) -> String {
    let mut text = String::new();
    for group in content.chunks(3) {
        let mut bytes = [0; 4];
        bytes[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bytes);
        for index in 0..4 {
            let value = bits >> (18 - 6 * index) & 63;
            let is_padding = index > group.len();
            text.push(if is_padding { '=' } else { char::from(ALPHABET[value as usize]) });
        }
    }
    text
}

/// Inserts `separator` after each `length` characters.
fn folded(text: &str, length: usize, separator: &str) -> String {
    let lines: Vec<_> =
        text.as_bytes().chunks(length).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join(separator)
}

/// Returns the digits of each byte after `prefix`.
fn hexadecimal(bytes: &[u8], prefix: &str) -> String {
    bytes.iter().map(|byte| format!("{prefix}{byte:02x}")).collect::<Vec<_>>().concat()
}

/// Returns a text with all characters as references without semicolon.
fn references(text: &str) -> String {
    hexadecimal(text.as_bytes(), "&#x00")
}

fn utf16(text: &str, is_big_endian: bool) -> Vec<u8> {
    let units = format!("\u{feff}{text}").encode_utf16().collect::<Vec<_>>();
    let bytes = |unit: &u16| if is_big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() };
    units.iter().flat_map(bytes).collect()
}

/// Returns a program's DOS header, and the bytes after it.
fn program() -> Vec<u8> {
    let mut program = vec![0; 512];
    program[..2].copy_from_slice(b"MZ");
    program[60] = 128;
    program[128..130].copy_from_slice(b"PE");
    program
}

/// Returns a page with the payload in a URL.
fn page() -> String {
    let code = base64(&payload());
    format!("<html><a href='data:application/octet-stream;base64,{code}'>x</a></html>")
}

/// Returns pages, drawings, scripts and their data.
fn web_texts() -> Vec<(&'static str, String)> {
    let code = &base64(&payload());
    let lines = |separator| folded(code, 76, separator);
    let percent = hexadecimal(&payload(), "%");
    vec![
        ("data-url.html", page()),
        ("atob.html", format!("<script>var f = atob('{code}');</script>")),
        ("variable.html", format!("<script>const content = \"{code}\";</script>")),
        (
            "drawing.svg",
            format!("<svg><image href=\"data:image/png;base64,\n{}\"/></svg>", lines("\n")),
        ),
        (
            "references.svg",
            format!("<svg><image href=\"data:x/y;base64,{}\"/></svg>", lines("&#10;")),
        ),
        ("hex-references.xml", format!("<x>{}</x>", lines("&#xD;&#xa;"))),
        ("string.json", format!("{{\"a\": \"{}\"}}", lines("\\r\\n").replace('/', "\\/"))),
        ("continued.js", format!("x = '{}'", lines("\\\n"))),
        ("short-lines.html", format!("<a href='data:a/b;base64,{}'>", folded(code, 3, " \n\t"))),
        ("spaces.html", format!("<a href='data:a/b;base64, {}'>", folded(code, 10, "  "))),
        (
            "escaped-url.html",
            format!("<a href='data:a/b;base64,{}'>", code.replace('+', "%2B").replace('=', "%3d")),
        ),
        ("percent-url.html", format!("<iframe src=\"data:text/html,{percent}%3Cb%3E\">")),
        ("percent-file.html", format!("<a href=\"data:a/b,{percent}\">")),
        (
            "percent-base64.html",
            format!("<a href='data:a/b;base64,{}'>", hexadecimal(code.as_bytes(), "%")),
        ),
        ("spaces-in-type.html", format!("<a href='data:a/b; base64 ,{}'>", folded(code, 10, "\n"))),
        ("form-feeds.html", format!("<a href='data:a/b;base64,{}'>", folded(code, 5, "\x0c"))),
        (
            "encoded-form-feeds.html",
            format!("<a href='data:a/b;base64,{}'>", folded(code, 5, "%0c")),
        ),
        (
            "reference.html",
            format!("<a href='data:a/b;base64,&#{};{}'>", code.as_bytes()[0], &code[1..]),
        ),
        (
            "references.html",
            format!("<a href='{}'>", references(&format!("data:a/b;base64,{code}"))),
        ),
        ("comma.html", format!("<a href='data:a/b;base64&comma;{}'>", folded(code, 10, "\n"))),
        ("bytes-before.html", format!("\0\u{1}\u{2}{}", page())),
    ]
}

/// Returns contacts, events, documents and plain text.
fn other_texts() -> Vec<(&'static str, String)> {
    let code = &base64(&payload());
    let lines = |separator| folded(code, 76, separator);
    let url = code.replace('+', "-").replace('/', "_").replace('=', "");
    vec![
        (
            "contact.vcf",
            format!(
                "BEGIN:VCARD\r\nPHOTO;ENCODING=b;TYPE=JPEG:{}\r\nEND:VCARD\r\n",
                lines("\r\n ")
            ),
        ),
        (
            "contact-2.1.vcf",
            format!("PHOTO;JPEG;ENCODING=BASE64:\r\n {}\r\n\r\nEND:VCARD\r\n", lines("\r\n ")),
        ),
        (
            "event.ics",
            format!(
                "ATTACH;FMTTYPE=a/b;ENCODING=BASE64;VALUE=BINARY:{}\r\nEND:VEVENT\r\n",
                lines("\r\n ")
            ),
        ),
        (
            "flat.fodt",
            format!(
                "<draw:image><office:binary-data>\n  {}\n </office:binary-data>",
                lines("\n  ")
            ),
        ),
        (
            "event-name.ics",
            format!(
                "ATTACH;ENCODING=BASE64;VALUE=BINARY;X-FILENAME=\"{}\":{}\r\n {}\r\n",
                "e".repeat(110),
                &code[..16],
                folded(&code[16..], 12, "\r\n ")
            ),
        ),
        ("flat-spaces.xml", format!("<pkg:binaryData> {} </pkg:binaryData>", folded(code, 9, " "))),
        ("flat-lines.xml", format!("<pkg:binaryData>{}</pkg:binaryData>", folded(code, 12, "\n"))),
        ("word.xml", format!("<w:binData w:name=\"a\">{}</w:binData>", folded(code, 12, "\n"))),
        ("lines.txt", format!("see below\n\n{}\n", lines("\r\n"))),
        (
            "file.pem",
            format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                folded(code, 64, "\n")
            ),
        ),
        ("script.py", format!("import base64\nx = base64.b64decode('{code}')\n")),
        ("base64url.txt", format!("token {url} end")),
        ("twice.txt", base64(base64(&payload()).as_bytes())),
        ("gzip.txt", base64(&gzip(&payload()))),
    ]
}

/// Returns pages with bytes of other kinds in front or behind.
fn surrounded() -> Vec<ContainerSample> {
    let page = page().into_bytes();
    let zip = stored_zip(&[("a.txt", b"harmless")]);
    let list = [
        ("before-zip.html", [&page[..], &zip].concat()),
        ("after-rtf.html", [b"{\\rtf1", &page[..]].concat()),
        ("after-pdf.html", [b"<!--%PDF-1.4-->", &page[..]].concat()),
    ];
    let sample = |(name, bytes)| ContainerSample::payload(format!("text/{name}"), bytes);
    list.into_iter().map(sample).collect()
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let mut samples: Vec<_> = web_texts()
        .into_iter()
        .chain(other_texts())
        .map(|(name, text)| ContainerSample::payload(format!("text/{name}"), text.into_bytes()))
        .collect();
    samples.push(ContainerSample::payload("text/utf-16.html", utf16(&page(), false)));
    samples.push(ContainerSample::payload("text/utf-16-be.html", utf16(&page(), true)));
    let other = format!("{}{}", "\u{4e00}".repeat(90), page());
    samples.push(ContainerSample::payload("text/utf-16-other.html", utf16(&other, false)));
    let (little, big) = (utf16(&page(), false).split_off(2), utf16(&page(), true).split_off(2));
    samples.push(ContainerSample::payload("text/utf-16-no-mark.html", little));
    samples.push(ContainerSample::payload("text/utf-16-be-no-mark.html", big));
    samples.push(ContainerSample::payload("text/drawing.svgz", gzip(page().as_bytes())));
    samples.extend(surrounded());
    samples.push(ContainerSample::new(
        "text/text.txt",
        b"Text, and more text.\n".repeat(9),
        Expected::Clean,
    ));
    samples
}

#[test]
fn files_in_text_are_found() {
    samples().iter().for_each(ContainerSample::check);
}

#[test]
fn samples_cause_no_notes() {
    for sample in samples() {
        let notes = collect(&sample.bytes).notes;
        assert!(notes.is_empty(), "{}: {notes:?}", sample.name);
    }
}

#[test]
fn contents_are_decoded_in_full() {
    let content: Vec<_> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
    let program = [program(), content].concat();
    for length in program.len() - 3..program.len() {
        let text = folded(&base64(&program[..length]), 76, "\r\n");
        assert_eq!(collect(text.as_bytes()).objects[1].1, program[..length]);
    }
}

#[test]
fn hashes_keys_and_identifiers_cost_no_objects() {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    let mut bytes = |length: usize| (0..length).map(|_| random()).collect::<Vec<_>>();
    let mut text = String::new();
    for _ in 0..300 {
        let hash = hexadecimal(&bytes(64), "");
        let token = format!(
            "eyJ{}.{}",
            base64(b"\"alg\": \"none\", \"name\": \"value\"".repeat(5).as_slice()),
            base64(&bytes(32))
        );
        let key = format!("ssh-rsa {}", base64(&bytes(300)));
        let certificate = format!(
            "-----BEGIN CERTIFICATE-----\n{}",
            folded(&base64(&[&[0x30, 0x82], &bytes(900)[..]].concat()), 64, "\n")
        );
        text += &[hash, token, key, certificate, "anIdentifier_OfSomeLength/".repeat(9)].join("\n");
    }
    let collected = collect(text.as_bytes());
    assert_eq!(collected.paths(), [""; 0]);
    assert!(collected.notes.is_empty());
}

#[test]
fn number_of_texts_is_bounded() {
    let texts = (0..3000).map(|number| base64(format!("{number:100}").as_bytes()));
    let collected = collect(texts.collect::<Vec<_>>().join("; ").as_bytes());
    assert_eq!(collected.objects.len(), 1001);
    assert!(collected.notes.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_is_bounded(bytes in vec(prop::sample::select(b"data:;base64,atob('\"AAAB=%2F\\/&#10; \r\n".as_slice()), 0..400)) {
        let collected = collect(&bytes);
        prop_assert!(collected.notes.is_empty());
    }

    #[test]
    fn any_content_is_found(content in vec(any::<u8>(), 30..300), length in 16..100_usize) {
        let text = format!("x;base64,{}", folded(&base64(&content), length, "\n "));
        let collected = collect(text.as_bytes());
        prop_assert_eq!(&collected.objects[1].1, &content);
    }
}

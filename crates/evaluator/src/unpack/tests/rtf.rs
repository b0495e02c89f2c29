//! Tests of RTF.

use std::time::Instant;

use proptest::prelude::*;

use super::{
    ContainerSample, Expected, collect,
    ole::{compound, native_data, size},
    payload,
};

pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Returns an embedded object in the format of OLE 1.0.
fn ole1(class: &str, data: &[u8]) -> Vec<u8> {
    let class = [class.as_bytes(), b"\0"].concat();
    let header = [&[1, 5, 0, 0, 2, 0, 0, 0], size(&class).as_slice(), &class, &[0; 8]].concat();
    [&header, size(data).as_slice(), data].concat()
}

/// Returns a document with an object whose data is in this text.
fn document(data: &str) -> Vec<u8> {
    format!(
        "{{\\rtf1\\ansi{{\\fonttbl{{\\f0 Arial;}}}}Text\\par{{\\object\\objemb{{\\*\\objclass Package}}\
         \\objw1\\objh1{{\\*\\objdata {data}}}{{\\result {{\\pict\\wmetafile8 0100}}}}}}More\\par}}"
    )
    .into_bytes()
}

fn package() -> Vec<u8> {
    ole1("Package", &native_data(["a.txt"; 3], &payload(), true))
}

fn ole_object() -> Vec<u8> {
    ole1("Word.Document.8", &compound(&[("Contents", &payload())]))
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let package = hex(&package());
    let ole = hex(&ole_object());
    let mut samples = vec![
        ContainerSample::payload("rtf-package", document(&package)),
        ContainerSample::payload("rtf-ole", document(&ole)),
        ContainerSample::payload("rtf-upper-case", document(&package.to_uppercase())),
        ContainerSample::payload(
            "rtf-other-version",
            document(&format!("deadbeef{}", &package[8..])),
        ),
        ContainerSample::payload(
            "rtf-compound-only",
            document(&hex(&compound(&[("a", &payload())]))),
        ),
        ContainerSample::payload("rtf-wrong-header", document(&format!("ffff{ole}"))),
        ContainerSample::payload(
            "rtf-data-store",
            format!("{{\\rtf1{{\\*\\datastore {ole}}}}}").into_bytes(),
        ),
        ContainerSample::payload(
            "rtf-theme",
            format!("{{\\rtf1{{\\*\\themedata {}}}}}", hex(&payload())).into_bytes(),
        ),
        ContainerSample::payload("rtf-picture", {
            let picture = hex(&payload());
            format!("{{\\rtf1{{\\pict{{\\*\\blipuid 00ff}}\\pngblip\\picw1\n{picture}}}}}")
                .into_bytes()
        }),
        ContainerSample::payload("rtf-picture-binary", {
            let start = format!("{{\\rtf1{{\\pict\\pngblip\\bin{} ", payload().len());
            [start.as_bytes(), &payload(), b"}}"].concat()
        }),
        ContainerSample::payload("rtf-not-closed", {
            let mut document = document(&package);
            document
                .truncate(document.windows(8).position(|part| part == b"{\\result").unwrap() - 1);
            document
        }),
    ];
    samples.extend(disguised(&package));
    samples.extend(signatures(&package));
    samples
}

/// Returns documents with the data between other text, as Word reads them.
fn disguised(package: &str) -> Vec<ContainerSample> {
    let (start, end) = package.split_at(41);
    let by_digit = |separator: &str| {
        let digits: Vec<_> = package.chars().map(String::from).collect();
        digits.join(separator)
    };
    let binary = |length: usize| {
        let (digits, rest) = package.split_at(40);
        let bytes: Vec<_> = (0..length)
            .map(|index| u8::from_str_radix(&rest[2 * index..][..2], 16).unwrap())
            .collect();
        let marker = "MARKER";
        let text = format!("{digits}\\bin{length:020} {marker}{}", &rest[2 * length..]);
        let document = document(&text);
        let at = document.windows(6).position(|part| part == marker.as_bytes()).unwrap();
        [&document[..at], bytes.as_slice(), &document[at + 6..]].concat()
    };
    let cases = [
        ("line-breaks", by_digit("\r\n")),
        ("words", by_digit("\\foo12 ")),
        ("long-word", format!("{start}\\{} {end}", "y".repeat(250))),
        // Word reads 253 characters of the control word.
        ("word-of-digits", format!("{}\\x{}{}", &package[..40], "1".repeat(252), &package[40..])),
        ("groups", by_digit("{}")),
        ("ignored-groups", by_digit("{\\*\\foo 01{\\b 23}}")),
        ("counted-ignored-groups", format!("{start}{{\\*\\foo {end}}}")),
        ("destinations", format!("{start}{{\\author 12}}{end}")),
        ("nested", format!("{start}{{\\b {end}}}")),
        ("nested-deep", format!("{}{package}{}", "{".repeat(5000), "}".repeat(5000))),
        // Word forgets the half byte before the symbol.
        ("symbol", format!("{}7\\'41{}", &package[..40], &package[40..])),
        ("other-symbols", by_digit("\\~\\\\\\{\\}")),
        ("other-characters", by_digit("\0xyz-;\u{fc}")),
        ("hyphen", format!("{start}\\b-;{end}")),
        ("odd-digit", format!("{package}7")),
        ("twice", format!("0102\\objdata {package}")),
        ("nested-data", format!("0102{{\\objdata {package}}}03")),
        ("bin-without-length", format!("{start}\\bin {end}")),
        ("bin-negative", format!("{start}\\bin-40 {end}")),
        ("bin-too-long", format!("{start}\\bin99999999 {end}")),
        ("bin-huge", format!("{start}\\bin99999999999999999999999 {end}")),
    ];
    let mut samples: Vec<_> = cases
        .into_iter()
        .map(|(name, data)| ContainerSample::payload(format!("rtf-{name}"), document(&data)))
        .collect();
    samples.push(ContainerSample::payload("rtf-bin", binary(30)));
    samples.push(ContainerSample::payload("rtf-bin-ignored", {
        document(&format!("{start}{{\\*\\foo\\bin3 }}}}{{}}{end}"))
    }));
    samples.push(ContainerSample::payload("rtf-bin-outside", {
        let document = String::from_utf8(document(package)).unwrap();
        document.replace("Text", "{\\*\\foo\\bin100000 }").into_bytes()
    }));
    samples.push(ContainerSample::payload("rtf-upper-case-word", {
        String::from_utf8(document(package)).unwrap().replace("objdata", "OBJDATA").into_bytes()
    }));
    samples
}

/// Returns documents with other first bytes.
fn signatures(package: &str) -> Vec<ContainerSample> {
    let document = String::from_utf8(document(package)).unwrap();
    let samples =
        ["{\\rt", "{\\rtf", "{\\rtxa", " \r\n\t{\\rtf1", "\u{feff}{\\rtf1", "\0\0{\\rtf1"];
    samples
        .iter()
        .map(|start| {
            let document = document.replacen("{\\rtf1", start, 1);
            ContainerSample::payload(format!("rtf-start {start:?}"), document.into_bytes())
        })
        .chain([
            ContainerSample::new("rtf-plain", document.replace("objdata", "foo").into(), Expected::Clean),
            ContainerSample::new(
                "rtf-about-rtf",
                b"{\\rtf1\\ansi The control words \\\\objdata and \\\\objupdate are described.\\par}".into(),
                Expected::Clean,
            ),
            ContainerSample::new("rtf-empty-object", super::rtf::document(""), Expected::Clean),
        ])
        .collect()
}

#[test]
fn samples_are_unpacked() {
    for sample in samples() {
        sample.check();
    }
}

#[test]
fn ordinary_documents_are_not_noted() {
    for sample in samples() {
        let collected = collect(&sample.bytes);
        assert!(collected.notes.is_empty(), "{}: {collected:?}", sample.name);
    }
}

#[test]
fn objects_have_names() {
    let collected = collect(&document(&hex(&package())));
    assert_eq!(collected.paths(), ["a.txt", "picture 2"]);
    let collected = collect(&document(&hex(&ole_object())));
    assert_eq!(collected.paths(), ["object 1", "object 1 > Contents", "picture 2"]);
}

#[test]
fn other_text_is_not_a_document() {
    for text in ["{\\rx1}", "text {\\rtf1}", "", "{\\r", &(" ".repeat(2000) + "{\\rtf1}")] {
        assert!(!crate::unpack::document::rtf::matches(text.as_bytes()), "{text}");
    }
}

#[test]
fn hostile_documents_take_linear_time() {
    let groups = |text: &str, count| format!("{{\\rtf1 {}", text.repeat(count)).into_bytes();
    for document in [
        groups("{", 2_000_000),
        groups("}", 2_000_000),
        groups("{\\objdata 01", 200_000),
        groups("{\\objdata 01{\\*\\x 02", 100_000),
        groups("{\\objdata 01}", 9_000),
        groups("\\objdata 01", 9_000),
        groups("\\bin999999999 ", 200_000),
        groups("{\\objdata\\bin3 ", 200_000),
        groups("\\", 2_000_001),
        [b"{\\rt\\objdata ".as_slice(), &b"d0cf11e0a1b11ae1".repeat(100_000)].concat(),
    ] {
        let start = Instant::now();
        collect(&document);
        assert!(start.elapsed().as_secs() < 5, "{:?}", &document[..40]);
    }
}

#[test]
fn deep_destinations_are_noted() {
    let document = format!("{{\\rtf1{}", "{\\objdata 01".repeat(2000));
    let collected = collect(document.as_bytes());
    assert!(collected.note(crate::report::NoteKind::Limit).is_some());
}

#[test]
fn truncated_documents_are_examined() {
    let document = document(&hex(&package()));
    for length in 0..document.len() {
        collect(&document[..length]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn accepts_any_document(parts in prop::collection::vec(part(), 0..40)) {
        collect(format!("{{\\rtf1{}", parts.concat()).as_bytes());
    }
}

/// Returns a part of a document.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "{",
            "}",
            "\\",
            "\\*",
            "\\objdata",
            "\\pict",
            "\\bin5 ",
            "\\bin",
            "\\'",
            "\\author ",
            "01050000",
            "d0cf11e0a1b11ae1",
            " ",
            "7",
        ])
        .prop_map(String::from),
        "[ -~]{0,10}",
    ]
}

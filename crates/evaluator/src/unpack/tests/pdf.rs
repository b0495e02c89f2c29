//! PDF.

mod fixtures;
mod samples;
mod writer;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};

pub(crate) use self::samples::samples;
use self::writer::{PdfWriter, attachment, base64, flate, object_stream};
use super::{ContainerSample, Expected, collect, payload};
use crate::{
    RuleFinding, RuleSet, UnpackSettings, evaluator, report::NoteKind, rule_filter::RuleFilter,
};

#[test]
fn contents_are_found() {
    for sample in samples() {
        sample.check();
    }
}

#[test]
fn harmless_files_have_no_notes() {
    let mut writer = PdfWriter::new("/OpenAction[3 0 R/Fit]");
    writer.object(3, "<</Type/Page/Parent 2 0 R/Contents[4 0 R 5 0 R]>>");
    writer.stream(4, "/Filter/FlateDecode", &flate(b"BT (x) Tj ET"));
    writer.stream(5, "", b"");
    writer.stream(6, "/Filter/FlateDecode", &flate(b""));
    writer.stream(7, "/Type/XObject/Subtype/Image/Width 1/Height 1/Filter/DCTDecode", b"\xff\xd8");
    let source = b"DATA = b'''%PDF-1.7\n1 0 obj <</Filter/FlateDecode>> stream\nxx\nendstream endobj startxref'''";
    for (name, bytes) in [
        ("pages", writer.finish()),
        ("source", source.to_vec()),
        ("text", b"The header %PDF-1.7 is followed by startxref".to_vec()),
        ("header", b"%PDF-".to_vec()),
        ("far header", [vec![b' '; 1025], attachment("/Filter/Other", b"x")].concat()),
    ] {
        ContainerSample::new(name, bytes, Expected::Clean).check();
    }
}

#[test]
fn pixels_are_examined_in_part_unless_they_are_a_file() {
    let pixels = flate(&vec![0; 3 << 20]);
    let picture = "/Subtype/Image/Width 1/Filter/FlateDecode";
    let mut writer = PdfWriter::new("");
    writer.stream(3, picture, &pixels);
    for (file, length) in [(writer.finish(), 1 << 20), (attachment(picture, &pixels), 3 << 20)] {
        let found = collect(&file);
        assert!(found.objects.iter().any(|(_, bytes)| bytes.len() == length), "{found:?}");
        assert!(found.notes.is_empty());
    }
}

#[test]
fn names_of_attachments_are_reported() {
    for (specification, expected) in [
        ("/F(a.txt)/EF<</F 4 0 R>>", "a.txt"),
        ("/F(a.txt)/UF<FEFF00E4002E006500780065>/EF<</UF 4 0 R>>", "ä.exe"),
        ("/EF 5 0 R/UF(c.js)/F(a.txt)", "c.js"),
        ("/UF 6 0 R/EF<</F 4 0 R>>", "d(1).bat"),
        ("/EF<</F 4 0 R>>", "object 4"),
    ] {
        let mut writer = PdfWriter::new("");
        writer.object(3, format!("<</Type/Filespec{specification}>>"));
        writer.stream(4, "", &payload());
        writer.object(5, "<</F 4 0 R>>");
        writer.object(6, "(d\\(1\\).bat)");
        let found = collect(&writer.finish());
        assert!(found.paths().contains(&expected), "{specification}: {found:?}");
    }
}

#[test]
fn encrypted_names_and_scripts_are_decrypted() {
    use fixtures::{AES_128, AES_128_OBJECT_STREAM, AES_256, RC4};
    for fixture in [RC4, AES_128, AES_128_OBJECT_STREAM, AES_256] {
        let found = collect(&base64(fixture));
        assert!(found.paths().contains(&"b.txt"), "{found:?}");
        assert!(found.objects.iter().any(|(_, bytes)| bytes == b"marker()"), "{found:?}");
        assert!(found.contains(b"/OpenAction <</S /JavaScript /JS (marker\\(\\))"), "{found:?}");
        assert!(found.notes.is_empty(), "{found:?}");
    }
}

#[test]
fn normalised_text_contains_what_viewers_execute() {
    let normalised = |entries: &str, objects: &[(u32, &str)]| {
        let mut writer = PdfWriter::new(entries);
        for (number, value) in objects {
            writer.object(*number, value);
        }
        let found = collect(&writer.finish());
        let (_, text) = found.objects.into_iter().find(|(path, _)| path == "normalised").unwrap();
        String::from_utf8(text).unwrap()
    };
    let script: &[_] = &[(4, "<</JS(x)/#53 5 0 R>>"), (5, "/Java#53cript")];
    for (entries, objects, expected) in [
        ("/OpenAction 4 0 R", script, "/OpenAction <</S /JavaScript /JS (x)"),
        ("/AA<</O 4 0 R>>", script, "/AA <</O <</S /JavaScript /JS (x)"),
        ("/Op#65nAction%\n4%\n0 R", script, "/OpenAction <</S /JavaScript"),
        (
            "/AA 6 0 R",
            &[(6, "<</WC<</S/Launch/F 7 0 R>>>>"), (7, "<</F<612E657865>>>")],
            "/AA <</WC <</S /Launch /S /Launch /F <</F (a.exe)>>",
        ),
        (
            "/Names<</JavaScript 6 0 R>>",
            &[(6, "<</Names[(a)7 0 R]>>"), (7, "<</S/JavaScript/JS(y)>>")],
            "/JavaScript <</Names [(a) <</S /JavaScript",
        ),
        (
            "/OpenAction 4 0 R",
            &[(4, "<</S/GoTo/D[3 0 R/Fit]>>"), (5, "<</S/JavaScript>>")],
            "/OpenAction <</S /GoTo /D [3 0 R /Fit]>>",
        ),
        (
            "/OpenAction 4 0 R",
            &[(4, "null"), (4, "<</S/JavaScript>>")],
            "/OpenAction null /OpenAction <</S /JavaScript",
        ),
        ("/OpenAction 4 0 R", &[], "/OpenAction 4 0 R"),
        (
            "/OpenAction 4 0 R",
            &[(4, "<</Next 4 0 R>>")],
            "/OpenAction <</Next <</Next <</Next 4 0 R>>>>>>",
        ),
        ("/A#20#2fB[1%]\n2]]>>/C", &[], "/A#20#2fB [1 2]"),
    ] {
        let text = normalised(entries, objects);
        assert!(text.starts_with("%PDF-1.7\n") && text.contains(expected), "{entries}: {text}");
    }
}

#[test]
fn supplied_rules_match_normalised_text() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/rules");
    let rules = RuleSet::load(&[directory]).unwrap();
    let find = |bytes: &[u8]| {
        let report = evaluator::evaluate(
            rules.prepared(),
            bytes,
            RuleFilter::default(),
            &UnpackSettings::default(),
        );
        report.unwrap().finding.map(|RuleFinding { rules, path, .. }| (rules, path))
    };
    let packed = |entries: &str, value: &[u8]| {
        let catalog = format!("<</Type/Catalog/Pages 2 0 R{entries}>>");
        // So long that it is compressed.
        let spaces = [b' '; 1000];
        let (dict, content) = object_stream(&[(1, catalog.as_bytes()), (4, value), (5, &spaces)]);
        let mut writer = PdfWriter::empty();
        writer.stream(5, &format!("{dict}/Filter/FlateDecode"), &flate(&content));
        writer.finish()
    };
    for (bytes, rule) in [
        (packed("/OpenAction 4 0 R", b"<</JS(x)/S/JavaScript>>"), "PDF_Runs_Code"),
        (packed("/AA<</O 4 0 R>>", b"<</JS(x)/S/JavaScript>>"), "PDF_Runs_Code"),
        (packed("/OpenAction 4 0 R", b"<</S/Launch/Win<</F(cmd.exe)>>>>"), "PDF_Starts_Program"),
        (packed("", b"<</Type/EmbeddedFile/UF(a.js)>>"), "Document_Carries_Program_File"),
    ] {
        let (names, path) = find(&bytes).unwrap();
        assert_eq!((names, path), (vec![rule.to_owned()], vec!["normalised".to_owned()]));
    }
    assert_eq!(find(&packed("/OpenAction 4 0 R", b"<</S/GoTo/D[3 0 R/Fit]>>")), None);
}

#[test]
fn truncated_files_are_accepted() {
    let file = attachment("/Filter/FlateDecode", &flate(&payload()));
    let encrypted = base64(fixtures::AES_128_OBJECT_STREAM);
    for file in [file, encrypted] {
        for length in 0..file.len() {
            collect(&file[..length]);
        }
    }
}

#[test]
fn hostile_files_take_linear_time() {
    let head = b"%PDF-1.7\n";
    for unit in [
        b"1 0 obj (".as_slice(),
        b"1 0 obj <",
        b"1 0 obj <<",
        b"1 0 obj[",
        b"1 0 obj<</Length 1 0 R>>stream\n",
        b"1 0 obj<</Filter 1 0 R/DecodeParms 1 0 R>>stream\n1\nendstream ",
        b"1 0 obj 1 0 R ",
        b"1 0 obj<</A 1 0 R>> ",
        b"1 0 obj %",
        b"1 0 R ",
        b"[[<<",
        b"trailer<</Encrypt 1 0 R",
        b"endstream",
    ] {
        let bytes = [head.as_slice(), b"1 0 obj<<", &unit.repeat(40_000 / unit.len())].concat();
        let start = Instant::now();
        collect(&bytes);
        let time = start.elapsed();
        assert!(time < Duration::from_secs(5), "{}: {time:?}", unit.escape_ascii());
    }
}

#[test]
fn many_pages_are_below_the_limits() {
    let mut writer = PdfWriter::new("");
    for number in 3..2000 {
        writer.stream(number, "", format!("BT ({number}) Tj ET").as_bytes());
    }
    let found = collect(&writer.finish());
    assert_eq!(found.objects.len(), 1999);
    assert!(found.note(NoteKind::Limit).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn accepts_changed_files(which in 0..3_usize, changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = match which {
            0 => attachment("/Filter[/LZW/A85]/DecodeParms<</Predictor 12/Columns 8>>", &flate(&payload())),
            1 => base64(fixtures::AES_128_OBJECT_STREAM),
            _ => base64(fixtures::RC4),
        };
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        collect(&bytes);
    }

    #[test]
    fn accepts_any_tokens(tokens in vec(prop::sample::select(TOKENS), 0..80)) {
        collect(&[b"%PDF-1.7 ".as_slice(), tokens.join(" ").as_bytes()].concat());
    }
}

const TOKENS: &[&str] = &[
    "1 0 obj",
    "2 0 obj",
    "endobj",
    "<<",
    ">>",
    "[",
    "]",
    "(",
    ")",
    "<",
    ">",
    "/Filter",
    "/Fl",
    "/LZW",
    "/S",
    "/JavaScript",
    "/OpenAction",
    "1 0 R",
    "2 0 R",
    "stream\n",
    "\nendstream",
    "/Length",
    "9",
    "/N",
    "/First",
    "0",
    "trailer",
    "/Encrypt",
    "/EF",
    "/F",
    "/UF",
    "%",
    "\n",
    "\\",
    "/AA",
    "/Next",
    "/Predictor",
    "x\u{9c}",
];

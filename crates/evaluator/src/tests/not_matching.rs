//! Harmless files that resemble those that the supplied rules match.

use super::{assert_matches, office::compound, zip::zip};

#[test]
fn no_rule_matches_similar_files() {
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0IEND";
    let docx = zip(&[
        ("[Content_Types].xml", b"<"),
        ("word/document.xml", b"<"),
        ("word/embeddings/oleObject1.bin", b"x"),
    ]);
    let odt = zip(&[
        ("mimetype", b"application/vnd.oasis.opendocument.text"),
        ("Basic/Standard/script-lb.xml", b"<"),
        ("Basic/script-lc.xml", b"<"),
        ("content.xml", b"<"),
    ]);
    let project = zip(&[
        ("src/main.js", b"x"),
        ("bin/tool.exe", b"x"),
        ("doc/notes.final.pdf", b"x"),
        ("a.url.txt", b"x"),
    ]);
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("an empty file", Vec::new()),
        ("one byte", b"M".to_vec()),
        ("a text that begins with MZ", b"MZ is how programs for DOS begin. PE\0\0 comes later.".to_vec()),
        ("a text about the test file", b"X5O!P%@AP is how it begins".to_vec()),
        ("an AMR recording", b"#!AMR\n\x3c\x91".to_vec()),
        ("Rust with an attribute", b"#![allow(dead_code)]\nfn main() {}\n".to_vec()),
        ("a picture", png.to_vec()),
        ("a picture with the word Rar!", [&png[..], b"Rar! PK\x03\x04 7z"].concat()),
        ("a picture with the text %PDF", [&png[..], b"tEXt%PDF or so"].concat()),
        ("a document", docx),
        ("an OpenDocument file with empty macro lists", odt),
        ("an archive of a project", project),
        ("an old document", compound(&["WordDocument", "ObjectPool"], b"Please AutoOpen the door")),
        ("an old document with a macro that does not run automatically", compound(&["_VBA_PROJECT"], b"Sub Total()")),
        ("a PDF that opens at a page", b"%PDF-1.5\n<</Type/Catalog/OpenAction[3 0 R /Fit]>>".to_vec()),
        ("a PDF that goes to a page by number", b"%PDF-1.5\n<</OpenAction 5 0 R>> 5 0 obj<</S/GoTo/D[3 0 R]>>".to_vec()),
        ("a PDF form that calculates sums", b"%PDF-1.5\n<</AA<</C<</S /JavaScript /JS (AFSimple)>>>>>>".to_vec()),
("a PDF form that opens another document", b"%PDF-1.4\n<</S /Launch /F 5 0 R>> 5 0 obj<</F (toolkit\\056pdf)>>".to_vec()),
                ("a PDF invoice with embedded data", b"%PDF-1.7\n<</Type/EmbeddedFile>> <</F (factur-x.xml)>>".to_vec()),
        ("PDF font names with escapes", b"%PDF-1.7\n/ABCDEF+Arial#20Bold /F#c3#a9d#c3#a9ration".to_vec()),
        ("RTF", b"{\\rtf1\\ansi{\\object\\objemb{\\*\\objdata 0105}} DDE is old}".to_vec()),
        ("a page with a script", b"<html><script>document.title = atob('eA==')</script></html>".to_vec()),
        ("a page with a link to a file", b"<html><a href=\"report.pdf\" download>report</a>".to_vec()),
        ("a drawing", b"<svg xmlns=\"http://www.w3.org/2000/svg\"><style>.on{}</style><path d=\"M0 0\"/></svg>".to_vec()),
        ("XML", b"<?xml version=\"1.0\"?><deployment><job/></deployment>".to_vec()),
        ("an INI file", b"[Desktop]\nExec=1\n".to_vec()),
        ("a SYLK sheet", b"ID;PWXL;N;E\nC;Y1;X1;K\"a\"\nC;Y2;X1;ESUM(A1:A3)\nE\n".to_vec()),
        ("a text that resembles a web query", b"WEB\n2\nhttps://example.org".to_vec()),
        ("an Apple property list", b"<?xml?><plist><key>PayloadType</key><string>x</string>".to_vec()),
        ("zeros", vec![0; 100_000]),
    ];
    for (description, file) in files {
        assert_matches(description, &file, &[]);
    }
}

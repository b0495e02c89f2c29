//! Variables with the structure of text, and the scope of text in another encoding.

use super::{finding, loading::load, utf16};

#[test]
fn rules_can_use_the_structure_of_text() {
    for (text, conditions) in [
        (
            "\u{feff}\r\n\0 <!-- x --><a:Root b=\"1\"/>",
            &["text_start == 7", "root == \"root\"", "settings == \"\"", "not is_batch"][..],
        ),
        (
            "<svg b='&lt;' a = \"java\nscript:\"></svg>",
            &["elements == \"\\nsvg\\nsvg\\tb=<\\nsvg\\ta=javascript:\\n\"", "root == \"svg\""],
        ),
        (
            "; x\n[Section]\nKey = value\nname:s:x\n",
            &[
                "settings == \"\\n[section]\\n[section]key=\\n[section]name:s:\\n\"",
                "root == \"\"",
                "text_start == 0",
            ],
        ),
        ("@echo off\nstart x\n", &["is_batch"]),
        ("{\\rtf1{\\fldinst Page}{\\fldinst \"IF\" x}}", &["fields == \"\\nif\\npage\\n\""]),
        (
            "<script>a('Blob');b.onclick=function(){c()}</script>",
            &[
                "startup_code matches /a\\(\"Blob\"\\);b\\.onclick=function\\(\\)\\}/",
                "not startup_code contains \"c()\"",
            ],
        ),
        ("\u{1}\u{2}", &["text_start == filesize", "startup_code == \"\""]),
    ] {
        for condition in conditions {
            let rules =
                load(&[("a.yar", &format!("rule A {{ condition: {condition} }}"))]).unwrap();
            assert!(finding(&rules, text.as_bytes(), &[]).is_some(), "{condition}: {text}");
        }
    }
}

#[test]
fn text_in_another_encoding_is_what_the_media_file_is() {
    let text = "@echo off\r\nstart calc\r\n";
    let outer = r#"rule A { meta: scope = "outer" condition: is_batch }"#;
    let inner = r#"rule A { meta: scope = "inner" condition: is_batch }"#;
    for to_bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        let media = utf16(text, to_bytes);
        assert!(finding(&load(&[("a.yar", outer)]).unwrap(), &media, &[]).is_some());
        assert!(finding(&load(&[("a.yar", inner)]).unwrap(), &media, &[]).is_none());
        let archive = super::zip::zip(&[("a.bat", &media)]);
        assert!(finding(&load(&[("a.yar", outer)]).unwrap(), &archive, &[]).is_none());
        assert!(finding(&load(&[("a.yar", inner)]).unwrap(), &archive, &[]).is_some());
    }
}

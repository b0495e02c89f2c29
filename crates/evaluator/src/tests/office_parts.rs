//! Macros, fields and templates in parts of Office documents, in documents in one XML file, and in RTF.

use super::{assert_all_match, assert_matches, assert_none_match, utf16, zip::zip};

const PREFIX: &str = "http://schemas.microsoft.com/office/2006/relationships";
const RELATIONSHIPS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";

/// Returns a document with one relationship.
fn document_with(relationship: &str) -> Vec<u8> {
    let relationships = format!(
        "<?xml version=\"1.0\"?>\r\n<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\">\
         {relationship}</Relationships>"
    );
    document(&[("word/_rels/document.xml.rels", relationships.as_bytes())])
}

fn document(parts: &[(&str, &[u8])]) -> Vec<u8> {
    zip(&[&[("[Content_Types].xml", b"<Types/>".as_slice())], parts].concat())
}

#[test]
fn macros_are_found_under_any_name() {
    for relationship in [
        format!("<Relationship Id=\"a\" Type=\"{PREFIX}/vbaProject\" Target=\"a.bin\"/>"),
        format!(
            "<r:Relationship xmlns:r='x' Target='a'\nType='{PREFIX}/vb&#97;Project' Id='a'></r:Relationship>"
        ),
        format!("<Relationship Type=\"{PREFIX}/xlMacrosheet\" Target=\"a.xml\"/>"),
    ] {
        assert_matches(&relationship, &document_with(&relationship), &["Office_Macros"]);
    }
    let control = format!("<Relationship Type=\"{RELATIONSHIPS}/control\" Target=\"a.xml\"/>");
    assert_matches("a control", &document_with(&control), &["Office_ActiveX"]);
    let wide =
        format!("<Relationships><Relationship Type=\"{PREFIX}/vbaProject\"/></Relationships>");
    let wide = document(&[("a.rels", &utf16(&wide, u16::to_le_bytes))]);
    assert_matches("UTF-16", &wide, &["Office_Macros"]);
    for relationship in [
        format!("<Relationship Type=\"{RELATIONSHIPS}/styles\" Target=\"vbaproject.xml\"/>"),
        format!("<!-- <Relationship Type=\"{PREFIX}/xlMacrosheet\"/> -->"),
    ] {
        assert_matches(&relationship, &document_with(&relationship), &[]);
    }
    let text =
        format!("<w:document><w:t>{PREFIX}/xlMacrosheet &lt;Relationships></w:t></w:document>");
    assert_matches(
        "a text about macros",
        &document(&[("word/document.xml", text.as_bytes())]),
        &[],
    );
}

#[test]
fn documents_in_one_file_with_macros_are_found() {
    let part =
        "<pkg:part pkg:name='/word/a.bin' pkg:contentType='application/vnd.ms-office.vbaProject'/>";
    let package = |content: &str| {
        format!(
            "<?mso-application progid=\"Word.Document\"?><pkg:package xmlns:pkg='x'>{content}</pkg:package>"
        )
    };
    let relationship = format!(
        "<Relationships><Relationship Type='{PREFIX}/vbaProject' Target='a.bin'/></Relationships>"
    );
    for file in [
        package(part),
        package(&relationship),
        "<w:wordDocument xmlns:w='x' w:macrosPresent=\"yes\"/>".to_owned(),
        "<w:wordDocument xmlns:w='x'><w:docSuppData><w:binData w:name='editdata.mso'/></w:docSuppData></w:wordDocument>".to_owned(),
    ] {
        assert_matches(&file, file.as_bytes(), &["Office_Macros"]);
    }
    assert_matches("ActiveMime", b"ActiveMime\0\0\x01\xf0\x04\0\0\0", &["Office_Macros"]);
    assert_none_match(&[
        &package("<pkg:part pkg:name='/word/document.xml' pkg:contentType='application/xml'/>"),
        "<w:wordDocument xmlns:w='x' w:macrosPresent=\"no\"/>",
        "The word ActiveMime in a text",
    ]);
}

#[test]
fn templates_and_objects_on_other_machines_are_found() {
    let external = |kind: &str, target: &str| {
        document_with(&format!(
            "<Relationship Id='a' Type='{RELATIONSHIPS}/{kind}' Target='{target}' TargetMode='External'/>"
        ))
    };
    for (kind, target) in [
        ("attachedTemplate", "https://example.org/a.dotm"),
        ("attachedTemplate", "HTTP://example.org/a"),
        ("attachedTemplate", "\\\\host\\share\\a.dotm"),
        ("attachedTemplate", "file:///\\\\host\\share\\a.dotm"),
        ("attachedTemplate", "file://host/share/a.dotm"),
        ("attachedTemplate", "&#104;ttps://example.org/a"),
        ("oleObject", "mhtml:https://example.org/a!x-usc:https://example.org/a"),
        ("frame", "https://example.org/a"),
    ] {
        assert_matches(target, &external(kind, target), &["Document_Loads_Template"]);
    }
    for (kind, target) in [
        (
            "attachedTemplate",
            "file:///C:\\Users\\x\\AppData\\Roaming\\Microsoft\\Templates\\Normal.dotm",
        ),
        ("attachedTemplate", "Normal.dotm"),
        ("hyperlink", "https://example.org/"),
        ("image", "https://example.org/a.png"),
        ("oleObject", "file:///C:\\a.xlsx"),
    ] {
        assert_matches(target, &external(kind, target), &[]);
    }
    assert_all_match(
        "Document_Loads_Template",
        &[
            "{\\rtf1{\\*\\template https://example.org/a.dotm}text}",
            "{\\rtf1\\ansi{\\*\\template\r\n\\\\\\\\host\\\\a.dotm}text}",
        ],
    );
    assert_none_match(&[
        "{\\rtf1{\\*\\template C:\\\\Program Files\\\\a.dotm}text}",
        "{\\rtf1 The word \\\\template https://example.org/ is text}",
    ]);
}

#[test]
fn commands_in_fields_are_found() {
    let field = |runs: &str| {
        let document = format!(
            "<?xml version=\"1.0\"?><w:document xmlns:w=\"x\"><w:p><w:fldChar w:fldCharType=\"begin\"/>{runs}\
             <w:fldChar w:fldCharType=\"separate\"/><w:fldChar w:fldCharType=\"end\"/></w:p></w:document>"
        );
        document_from(&document)
    };
    for runs in [
        "<w:instrText>DDEAUTO c:\\\\windows\\\\cmd.exe</w:instrText>",
        "<w:instrText xml:space='preserve'> DDE \"cmd\" \"a\"</w:instrText>",
        "<w:r><w:instrText> D</w:instrText></w:r><w:r><w:instrText>DE</w:instrText></w:r><w:r><w:instrText>AUTO x</w:instrText></w:r>",
        "<w:instrText>&#68;DEAUTO x</w:instrText>",
        "<w:instrText><![CDATA[dde]]> x</w:instrText>",
        "<w:instrText>IF </w:instrText><w:fldChar w:fldCharType='begin'/><w:instrText>DDE x</w:instrText><w:fldChar w:fldCharType='end'/>",
    ] {
        assert_matches(runs, &field(runs), &["Document_Runs_Command"]);
    }
    let simple = document_from(
        "<w:document xmlns:w='x'><w:fldSimple w:instr=' DDEAUTO c:\\\\a'/></w:document>",
    );
    assert_matches("a simple field", &simple, &["Document_Runs_Command"]);
    let link =
        "<externalLink xmlns='x'><ddeLink ddeService=\"cmd\" ddeTopic=\"/c calc\"/></externalLink>";
    let link = document(&[("xl/externalLinks/externalLink1.xml", link.as_bytes())]);
    assert_matches("a link of Excel", &link, &["Document_Runs_Command"]);
    for runs in [
        "<w:instrText> HYPERLINK \"https://example.org/dde\" </w:instrText><w:t>DDE is old</w:t>",
        "<w:instrText>PAGE</w:instrText><w:t>DDEAUTO</w:t>",
        "<w:instrText>DDEX x</w:instrText>",
    ] {
        assert_matches(runs, &field(runs), &[]);
    }
}

fn document_from(xml: &str) -> Vec<u8> {
    document(&[("word/document.xml", xml.as_bytes())])
}

#[test]
fn commands_in_fields_of_rtf_are_found() {
    assert_all_match(
        "Document_Runs_Command",
        &[
            "{\\rtf1{\\field{\\*\\fldinst {\\rtlch DDEAUTO c:\\\\x}}}}",
            "{\\rtf1{\\field{\\*\\fldinst{\\b D}{\\i DE}AU\r\nTO \"x\"}{\\fldrslt x}}}",
            "{\\rtf1{\\field{\\*\\fldinst \\'44\\'44\\'45 x}}}",
            "{\\rtf1{\\field{\\*\\fldinst \\u68?\\u68?E x}}}".replace('?', "").as_str(),
            "\u{feff}\r\n{\\rt{\\field{\\*\\fldinst{ IF }{\\field{\\*\\fldinst{DDEAUTO x}}}}}}",
        ],
    );
    assert_none_match(&[
        "{\\rtf1{\\field{\\*\\fldinst{HYPERLINK \"https://example.org\"}}{\\fldrslt x}} The command DDE is old}",
        "{\\rtf1 In \\{\\\\field\\{\\\\fldinst DDEAUTO x\\}\\} the word is text}",
    ]);
}

#[test]
fn objects_in_rtf_need_control_words() {
    assert_all_match(
        "RTF_Object_That_Loads_Itself",
        &[
            "{\\rtf1{\\object\\objemb\\objupdate{\\*\\objdata 01}}}",
            "\n{\\rtf1 \\\\{\\object\\objupdate\\objw1{\\*\\objdata\n01}}}",
        ],
    );
    assert_none_match(&[
        "{\\rtf1\\ansi The words \\\\objdata and \\\\objupdate are described on the next page.\\par}",
        "{\\rtf1{\\object\\objemb{\\*\\objdata 01}} The word \\\\objupdate is text}",
    ]);
}

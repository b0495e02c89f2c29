//! Drawings with scripts, and other kinds of documents in XML.

use super::{assert_all_match, assert_matches, assert_matches_in_all_encodings, assert_none_match};

/// Returns a drawing with this content.
fn drawing(content: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\">{content}</svg>"
    )
}

#[test]
fn everything_that_runs_code_in_a_drawing_is_found() {
    for content in [
        "<script>alert(1)</script>",
        "<script href=\"a.js\"/>",
        "<a:script xmlns:a=\"http://www.w3.org/2000/svg\">alert(1)</a:script>",
        "<h:script xmlns:h='http://www.w3.org/1999/xhtml'>alert(1)</h:script>",
        "<g onload=\"alert(1)\"/>",
        "<g onfocusin\n=\n'alert(1)'/>",
        "<g\nONPOINTERRAWUPDATE=\"alert(1)\"/>",
        "<path d=\"a>b\" onanimationend=\"alert(1)\"/>",
        "<set attributeName=\"onclick\" to=\"alert(1)\"/>",
        "<a><set attributeName=\"href\" to=\"javascript:alert(1)\"/><text>x</text></a>",
        "<a><animate attributeName=\"xlink:href\" values=\"javascript:alert(1)\"/></a>",
        "<a xlink:href=\"&#106;ava&#x9;script:alert(1)\">x</a>",
        "<a href=\" \njavascript&colon;alert(1)\">x</a>",
        "<foreignObject><iframe xmlns=\"http://www.w3.org/1999/xhtml\" src=\"x\"/></foreignObject>",
        "<use href=\"data:image/svg+xml;base64,PHN2Zz4=#x\"/>",
    ] {
        let file = drawing(content);
        assert_matches(&file, file.as_bytes(), &["Picture_With_Script"]);
    }
}

#[test]
fn drawings_are_found_behind_padding() {
    let content = drawing("<script>1</script>");
    for start in [
        " ".repeat(70_000),
        "\n\t\0 ".to_owned(),
        "<?xml version=\"1.0\"?>\n".to_owned(),
        format!("<?xml version=\"1.0\"?><!--{}-->", "x".repeat(70_000)),
        "<!DOCTYPE svg PUBLIC \"a\" \"b\" [<!ENTITY a \"b>\"><!-- ' -->]>\n".to_owned(),
        "<?a b=\">\"?>".to_owned(),
    ] {
        let file = start + &content;
        assert_matches("padding", file.as_bytes(), &["Picture_With_Script"]);
    }
    assert_matches_in_all_encodings("Picture_With_Script", &content);
    assert_all_match(
        "Picture_With_Script",
        &[
            "<x:svg xmlns:x=\"http://www.w3.org/2000/svg\"><x:script>1</x:script></x:svg>",
            "<g xmlns=\"http://www.w3.org/2000/svg\"><script>1</script></g>",
            "<?xml-stylesheet type=\"text/xsl\" href=\"#a\"?><svg/>",
            "<!DOCTYPE svg [<!ENTITY a \"&#60;script>alert(1)&#60;/script>\">]><svg>&a;</svg>",
            "<!DOCTYPE svg [<!ENTITY a 'javascript:alert(1)'>]><svg><a href=\"&a;\"/></svg>",
            "<!DOCTYPE svg [<!ENTITY n 'http://www.w3.org/2000/svg'>]><svg><a:script xmlns:a='&n;'/></svg>",
        ],
    );
}

#[test]
fn harmless_drawings_and_sources_are_not_refused() {
    for content in [
        "<style>.on { }</style><text>on load = \"x\"</text><path d=\"M0 0\"/>",
        "<!-- <script>1</script> --><text>&lt;script></text>",
        "<text><![CDATA[<script>1</script>]]></text>",
        "<a href=\"https://example.org/javascript:\">x</a>",
        "<metadata><x:online xmlns:x=\"urn:x\" x:only=\"y\"/></metadata>",
        "<defs><inkscape:path-effect xmlns:inkscape=\"urn:i\" only_selected=\"false\"/></defs>",
        "<g on-top=\"1\" on1=\"2\"/>",
        "<desc>javascript: is a scheme</desc><image href=\"data:image/png;base64,iVBORw0KGgo=\"/>",
    ] {
        let file = drawing(content);
        assert_matches(&file, file.as_bytes(), &[]);
    }
    assert_none_match(&[
        "// A component.\nexport const Bar = () => (\n <svg viewBox=\"0 0 8 8\"><path onClick={open}/></svg>\n);\n",
        "TESTS = [\n    '<svg onload=\"alert(1)\"/>',\n    '<svg><script>1</script></svg>',\n]\n",
        "<!doctype html><html><body><svg onload=\"draw()\"><script>draw()</script></svg></body></html>",
        "<office:document xmlns:office='urn:o' xmlns:svg='http://www.w3.org/2000/svg'><office:script/></office:document>",
        "<!DOCTYPE svg [<!ENTITY ns_svg \"http://www.w3.org/2000/svg\">]><svg xmlns=\"&ns_svg;\"><g/></svg>",
    ]);
}

#[test]
fn documents_in_xml_are_found_by_their_first_element() {
    let padding = format!("\u{feff}<?xml version=\"1.0\"?>\n<!-- {} -->\n", "x".repeat(5000));
    for (rule, content) in [
        ("Windows_Shell_File", "<a:libraryDescription xmlns:a=\"x\"/>"),
        ("Windows_Shell_File", "<searchConnectorDescription/>"),
        ("Windows_Shell_File", "<persistedQuery version=\"1.0\"/>"),
        ("Windows_Shell_File", "<MMC_ConsoleFile/>"),
        ("Windows_Shell_File", "<PCSettings/>"),
        ("Windows_Script_File", "<job><script\nsrc=\"a\" language = 'JScript'/></job>"),
        ("Java_Web_Start", "<jnlp/>"),
        (
            "Java_Web_Start",
            "<a:assembly xmlns:a=\"urn:schemas-microsoft-com:asm.v1\"><b:deployment install=\"true\"/></a:assembly>",
        ),
        ("Windows_App_Package", "<AppInstaller Uri=\"x\"/>"),
        (
            "Apple_Configuration_Profile",
            "<plist><key>PayloadType</key> <string>Configuration</string></plist>",
        ),
        ("HTML_Application", "<html><hta:application id=x></html>"),
    ] {
        let file = padding.clone() + content;
        assert_matches(content, file.as_bytes(), &[rule]);
    }
    assert_none_match(&[
        "<list><libraryDescription/></list>",
        "<html><body><p>The element <code>&lt;jnlp></code></p></body></html>",
        "text before <jnlp/>",
        "<package><name>x</name></package>",
    ]);
}

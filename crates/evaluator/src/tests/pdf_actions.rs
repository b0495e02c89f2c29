//! Actions of PDF files that run without a click.

use super::assert_matches;

/// Returns a file with these entries in its catalogue, and further objects from number 2 on.
fn pdf(entries: &str, objects: &[&str]) -> Vec<u8> {
    let catalogue = format!("<</Type/Catalog/Pages 9 0 R{entries}>>");
    let objects = std::iter::once(catalogue.as_str()).chain(objects.iter().copied());
    let objects = objects.enumerate();
    let object = |(index, object)| format!("{} 0 obj\n{object}\nendobj\n", index + 1);
    let objects = objects.map(object).collect::<Vec<_>>().concat();
    format!("%PDF-1.7\n{objects}trailer\n<</Root 1 0 R>>\n").into_bytes()
}

const SCRIPT: &str = "<</S/JavaScript/JS(app.alert\\(1\\))>>";

#[test]
fn scripts_that_run_by_themselves_are_found() {
    let long = format!("<</JS({})/S/JavaScript>>", "a=1;".repeat(200));
    let files: &[(&str, &[&str])] = &[
        ("/OpenAction<</S/JavaScript/JS(x)>>", &[]),
        (&format!("/OpenAction{long}"), &[]),
        ("/OpenAction 2 0 R", &[SCRIPT]),
        ("/OpenAction 2 0 R", &[&long]),
        ("/OpenAction%comment\n2%\n0 R", &["<</S/Java#53cript/JS(x)>>"]),
        ("/Open#41ction<</#53/J#61vaScript/JS(x)>>", &[]),
        ("/OpenAction 2 0 R", &["<</S/GoTo/D[9 0 R/Fit]/Next 3 0 R>>", SCRIPT]),
        ("/OpenAction<</S/GoTo/D[9 0 R/Fit]/Next[<</S/JavaScript/JS(x)>>]>>", &[]),
        ("/OpenAction<</S/Rendition/OP 0/JS(x)>>", &[]),
        ("/AA<</WC 2 0 R>>", &[SCRIPT]),
        ("/AA 2 0 R", &["<</DS 3 0 R>>", SCRIPT]),
        ("", &["<</Type/Page/AA<</O 3 0 R>>>>", SCRIPT]),
        ("", &["<</Type/Page/AA<</C<</S/GoTo/D[9 0 R]>>/O 3 0 R>>>>", SCRIPT]),
        ("", &["<</Type/Annot/AA<</PV 3 0 R>>>>", SCRIPT]),
        ("/Names<</JavaScript 2 0 R>>", &["<</Names[(a)3 0 R]>>", SCRIPT]),
    ];
    for (entries, objects) in files {
        assert_matches_any(entries, &pdf(entries, objects), "PDF_Runs_Code");
    }
}

/// Asserts that a rule is among those that match.
fn assert_matches_any(description: &str, bytes: &[u8], rule: &str) {
    let found = super::finding(&super::SUPPLIED, bytes, &[]);
    let names = found.map(|found| found.rules).unwrap_or_default();
    // Escapes of names are reported by another rule, and first.
    let is_expected = |name: &String| name == rule || name == "PDF_Hides_Names";
    assert!(!names.is_empty() && names.iter().all(is_expected), "{description}: {names:?}");
}

#[test]
fn header_needs_no_version() {
    for header in ["%PDF-", "%PDF-x", "junk\n%PDF-1"] {
        let file = pdf("/OpenAction 2 0 R", &[SCRIPT]);
        let file = [header.as_bytes(), &file[8..]].concat();
        assert_matches(header, &file, &["PDF_Runs_Code"]);
    }
}

#[test]
fn programs_that_start_by_themselves_are_found() {
    let launch = "<</S/Launch/F(report.pdf)>>";
    let files: &[(&str, &[&str])] = &[
        ("/OpenAction<</S/Launch/F(a)>>", &[]),
        ("/OpenAction 2 0 R", &[launch]),
        ("/OpenAction 2 0 R", &["<</S/GoTo/D[9 0 R]/Next 3 0 R>>", launch]),
        ("", &["<</Type/Page/AA<</O 3 0 R>>>>", launch]),
        ("", &["<</S/Launch/Win<</F(cmd)>>>>"]),
    ];
    for (entries, objects) in files {
        assert_matches(entries, &pdf(entries, objects), &["PDF_Starts_Program"]);
    }
}

#[test]
fn forms_and_links_are_not_refused() {
    let calculation = "<</Type/Annot/FT/Tx/AA<</K 3 0 R/F 3 0 R/C 3 0 R/V 3 0 R>>>>";
    let files: &[(&str, &[&str])] = &[
        ("/OpenAction 4 0 R", &[calculation, SCRIPT, "<</S/GoTo/D[9 0 R/Fit]>>"]),
        ("/OpenAction[9 0 R/Fit]", &[calculation, SCRIPT]),
        ("/OpenAction 4 0 R", &["<</Type/Annot/A 3 0 R>>", SCRIPT, "[9 0 R/Fit]"]),
        (
            "/OpenAction 4 0 R",
            &["<</Type/Annot/A 3 0 R>>", "<</S/Launch/F(a.pdf)>>", "<</S/GoTo/D[9 0 R]>>"],
        ),
        ("", &["<</Type/Annot/Subtype/Widget/AA<</D 3 0 R/U 3 0 R/E 3 0 R>>>>", SCRIPT]),
    ];
    for (entries, objects) in files {
        assert_matches(entries, &pdf(entries, objects), &[]);
    }
}

/// Returns a file with a form in XML.
fn form(template: &str) -> Vec<u8> {
    let stream = format!("<</Length {}>>stream\n{template}\nendstream", template.len());
    pdf("/AcroForm<</Fields[]/XFA 2 0 R>>", &[&stream])
}

#[test]
fn forms_in_xml_are_found_if_scripts_run_by_themselves() {
    let event = |activity: &str, kind: &str| {
        format!(
            "<template xmlns=\"http://www.xfa.org/schema/xfa-template/2.5/\"><subform>\
             <event name=\"a\"\nactivity='{activity}'><script contentType=\"application/{kind}\">x</script></event>\
             </subform></template>"
        )
    };
    for activity in ["docReady", "initialize", "ready", "&#105;nitialize"] {
        let template = event(activity, "x-javascript");
        assert_matches(activity, &form(&template), &["PDF_Runs_Code"]);
        let xdp = format!("<?xml version=\"1.0\"?>\n<xdp:xdp xmlns:xdp='x'>{template}</xdp:xdp>");
        assert_matches(activity, &form(&xdp), &["PDF_Runs_Code"]);
    }
    for template in [
        event("click", "x-javascript"),
        event("exit", "x-javascript"),
        event("initialize", "x-formcalc"),
    ] {
        assert_matches(&template, &form(&template), &[]);
    }
}

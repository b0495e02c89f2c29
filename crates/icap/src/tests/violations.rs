//! `X-Violations-Found`: a count and four lines for each violation. The name of a file in it may contain line ends.

use super::*;
use FindingKind::{Encrypted, Infected, Limit};

/// Builds the header from its lines.
fn header(lines: &[&str]) -> String {
    format!("X-Violations-Found: {}", lines.join("\r\n\t"))
}

#[tokio::test]
async fn valid_violations_have_the_kinds_of_their_threats() {
    let encrypted = ["a.zip", "Encrypted container violation", "-1", "0"];
    let limit = ["b.zip", "Container size violation", "-1", "0"];
    let both = [&["2"], &encrypted[..], &limit[..]].concat();
    let with_virus =
        [&["3"], &encrypted[..], &limit[..], &["c", "Eicar", "11101", "2"][..]].concat();
    for (lines, kind, name) in [
        ([&["1"], &encrypted[..]].concat(), Encrypted, "Encrypted container violation"),
        ([&["1"], &limit[..]].concat(), Limit, "Container size violation"),
        (both, Encrypted, "Encrypted container violation"),
        (with_virus, Infected, "Eicar"),
    ] {
        assert_found(head(200, &header(&lines)), kind, name).await;
    }
}

#[tokio::test]
async fn violations_that_disagree_with_their_count_are_an_infection() {
    let text = "Encrypted container violation";
    for lines in [
        vec!["2", "a.zip", text, "-1", "0"],
        vec!["0", "a.zip", text, "-1", "0"],
        vec!["1", "a.zip", text, "-1", "0", "b", text, "-1", "0"],
        vec!["1", "a.zip", text, "-1"],
        vec!["1", "a.zip", text, "-1", "0", "0"],
        vec!["x", "a.zip", text, "-1", "0"],
        vec!["+1", "a.zip", text, "-1", "0"],
        vec!["-1", "a.zip", text, "-1", "0"],
        vec!["99999999999999999999999", "a.zip", text, "-1", "0"],
        // Values that are not valid numbers.
        vec!["1", "a.zip", text, "x", "0"],
        vec!["1", "a.zip", text, "-1", text],
        // A name with line ends, before the threat of the violation and its numbers.
        vec!["1", "a", text, "-1", "0", "Eicar", "11101", "2"],
    ] {
        let headers = header(&lines);
        assert_found(head(200, &headers), Infected, text).await;
        // A finding that the caller may accept does not weaken the infection.
        let headers = format!("X-Error-Code: password_protected\r\n{headers}");
        assert_found(head(204, &headers), Infected, text).await;
    }
    for (lines, name) in [
        (vec!["1"], "1"),
        (vec!["1", "a.zip"], "1\r\n\ta.zip"),
        (vec!["2", "a.zip", text, "-1", "0", "b", "", "-1", "0"], text),
    ] {
        let headers = format!("X-Error-Code: decode_error\r\n{}", header(&lines));
        assert_found(head(200, &headers), Infected, name).await;
    }
}

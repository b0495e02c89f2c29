//! Kinds of findings: infections, refusals, contents that need a password, limits, and failures.

use super::*;
use FindingKind::{Encrypted, Infected, Limit, Refused, TooLarge};

/// Asserts that a response with these headers is parsed as this finding, regardless of its status.
async fn assert_found_with_any_status(headers: &str, kind: FindingKind, name: &str) {
    for status in [204, 200, 403, 500] {
        assert_found(head(status, headers), kind, name).await;
    }
    assert_found(with_header(headers, &sent_back(MEDIA)), kind, name).await;
}

#[tokio::test]
async fn infection_found_type_determines_the_kind() {
    for (value, kind, name) in [
        ("Type=0; Resolution=2; Threat=Eicar-Test;", Infected, "Eicar-Test"),
        ("Resolution=2; Threat=Eicar-Test;", Infected, "Eicar-Test"),
        ("Type=7; Resolution=2; Threat=Eicar-Test;", Infected, "Eicar-Test"),
        (
            "Type=2; Resolution=2; Threat=Encrypted container violation;",
            Encrypted,
            "Encrypted container violation",
        ),
        ("type=2;threat=Password protected file", Encrypted, "Password protected file"),
        (
            "Type=2; Resolution=2; Threat=Container size violation",
            Limit,
            "Container size violation",
        ),
        (
            "Type=2; Resolution=2; Threat=Malformed container violation;",
            Limit,
            "Malformed container violation",
        ),
        (
            "Type=2; Resolution=2; Threat=Maximum Extract Depth exceeded;",
            Limit,
            "Maximum Extract Depth exceeded",
        ),
        (
            "Type=1; Resolution=2; Threat=File policy violation File Size Blocked;",
            TooLarge,
            "File policy violation File Size Blocked",
        ),
        ("Type=1; Resolution=2; Threat=Mail policy violation;", Refused, "Mail policy violation"),
        ("Type=2; Resolution=2; Threat=Unknown;", Refused, "Unknown"),
        ("Type=2;", Refused, "Type=2;"),
        // The name of a file.
        ("Type=1; Threat=file blocked: encrypted.exe;", Refused, "file blocked: encrypted.exe"),
        ("Type=2; Threat=Suspicious container size;", Infected, "Suspicious container size"),
        // ClamAV behind c-icap.
        ("Type=0; Threat=Heuristics.Encrypted.Zip;", Encrypted, "Heuristics.Encrypted.Zip"),
        (
            "Type=0; Threat=Heuristics.Limits.Exceeded.MaxFiles;",
            Limit,
            "Heuristics.Limits.Exceeded.MaxFiles",
        ),
    ] {
        assert_found_with_any_status(&format!("X-Infection-Found: {value}"), kind, name).await;
    }
}

#[tokio::test]
async fn error_code_is_a_property_of_the_file_or_a_failure() {
    for (code, kind) in [
        ("password_protected", Encrypted),
        ("PASSWORD-PROTECTED", Encrypted),
        ("max_archive_layers_exceeded", Limit),
        ("decode_error", Limit),
        ("max_file_size_exceeded", TooLarge),
        ("max_total_size_exceeded", Limit),
        ("max_total_files_exceeded", Limit),
        ("file_type_blocked", Refused),
        ("file_extension_blocked", Refused),
    ] {
        assert_found_with_any_status(&format!("X-Error-Code: {code}"), kind, code).await;
        assert_found_with_any_status(&format!("X-ICAP-Error: {code}"), kind, code).await;
    }
    let both = "X-Error-Code: decode_error, password_protected";
    assert_found_with_any_status(both, Encrypted, "password_protected").await;
    for code in ["antivirus_engine_error", "insufficient_space", "scan_timeout", "strange"] {
        for status in [204, 200, 500] {
            let answer = scan(head(status, &format!("X-Error-Code: {code}")), Fault::None).await;
            let expected = format!("error code {code}");
            assert!(
                matches!(&answer, Err(IcapError::Reported(reason)) if *reason == expected),
                "{answer:?}"
            );
        }
    }
    for none in ["", "0", "None"] {
        let answer = scan(head(204, &format!("X-Error-Code: {none}")), Fault::None).await;
        assert_eq!(answer.unwrap(), Answer::Clean, "{none}");
        let answer = scan(head(500, &format!("X-Error-Code: {none}")), Fault::None).await;
        assert!(matches!(answer, Err(IcapError::Reported(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn other_headers_report_kinds() {
    for (headers, kind, name) in [
        ("X-Virus-ID: Encrypted Archive", Encrypted, "Encrypted Archive"),
        (
            "X-Blocked-Reason: Encrypted Archive\r\nX-Response-Info: Blocked",
            Encrypted,
            "Encrypted Archive",
        ),
        ("X-Blocked-Reason: Exceeded Archive Depth", Limit, "Exceeded Archive Depth"),
        ("X-Blocked-Reason: Infected", Infected, "Infected"),
        ("X-Block-Reason: Malware found", Infected, "Malware found"),
        ("X-Block-Reason: Media Type (Block List)", Refused, "Media Type (Block List)"),
        ("X-Block-Reason: Type of encrypted.txt", Refused, "Type of encrypted.txt"),
        ("X-Block-Reason: Password-protected archive", Encrypted, "Password-protected archive"),
        ("X-Blocked: true", Refused, "true"),
        ("X-Blocked: true\r\nX-Error-Code: decode_error", Limit, "decode_error"),
        ("X-Response-Info: Blocked", Refused, "blocked by the ICAP server"),
        ("X-FSecure-Scan-Result: encrypted", Encrypted, "encrypted"),
        ("X-FSecure-Scan-Result: suspected", Infected, "suspected"),
        ("X-FSecure-Scan-Result: other", Infected, "other"),
        ("X-Violations-Found: 1", Infected, "1"),
        (
            "X-Violations-Found: 1\r\n\tmedia\r\n\tEncrypted container violation\r\n\t-1\r\n\t0",
            Encrypted,
            "Encrypted container violation",
        ),
    ] {
        assert_found_with_any_status(headers, kind, name).await;
    }
}

#[tokio::test]
async fn infection_outweighs_all_other_kinds() {
    let violations = "X-Violations-Found: 2\r\n\ta\r\n\tContainer size violation\r\n\t-1\r\n\t0\
                      \r\n\tb\r\n\tEicar\r\n\t11101\r\n\t2";
    assert_found_with_any_status(violations, Infected, "Eicar").await;
    for other in [
        "X-Infection-Found: Type=2; Resolution=2; Threat=Encrypted container violation;",
        "X-Error-Code: password_protected",
        "X-Error-Code: antivirus_engine_error",
        "X-Blocked-Reason: Exceeded Archive Size",
        "X-Virus-ID: Encrypted Archive",
        "X-Response-Info: Blocked",
    ] {
        for name in ["X-Virus-Name: Eicar", "X-Infection-Found: Type=0; Threat=Eicar;"] {
            for headers in [format!("{other}\r\n{name}"), format!("{name}\r\n{other}")] {
                assert_found_with_any_status(&headers, Infected, "Eicar").await;
            }
        }
    }
    // The caller may accept the other kinds but never a refusal, so a refusal takes precedence.
    let headers = "X-Error-Code: password_protected, file_type_blocked";
    assert_found_with_any_status(headers, Refused, "file_type_blocked").await;
}

#[tokio::test]
async fn status_without_headers_is_a_refusal_too_large_or_a_failure() {
    let page = b"<html>Blocked</html>";
    for (status, expected) in [
        ("302 Found", Some((Refused, "replaced by the ICAP server"))),
        ("403 Forbidden", Some((Refused, "replaced by the ICAP server"))),
        ("406 Not Acceptable", Some((Refused, "replaced by the ICAP server"))),
        ("451 Unavailable For Legal Reasons", Some((Refused, "replaced by the ICAP server"))),
        ("413 Content Too Large", Some((TooLarge, "too large for the ICAP server"))),
        ("401 Unauthorized", None),
        ("404 Not Found", None),
        ("407 Proxy Authentication Required", None),
        ("500 Scan error", None),
        ("502 Bad Gateway", None),
    ] {
        for method in [Method::Respmod, Method::Reqmod] {
            let response = modified("res", &format!("HTTP/1.1 {status}"), page);
            let answer = scan_by_method(method, response, Fault::None).await;
            match (answer, expected) {
                (Ok(Answer::Found { first, .. }), Some(expected)) => {
                    assert_eq!((first.kind, first.name.as_str()), expected, "{status}");
                }
                (Err(IcapError::Reported(_)), None) => {}
                (answer, _) => panic!("{status}: {answer:?}"),
            }
        }
    }
    assert_found(head(403, "X: y"), Refused, "refused by the ICAP server").await;
    assert_found(head(413, "X: y"), TooLarge, "too large for the ICAP server").await;
    for status in [202, 400, 404, 405, 406, 407, 500, 503, 539] {
        let answer = scan(head(status, "X: y"), Fault::None).await;
        assert!(matches!(answer, Err(IcapError::Reported(_))), "{status}: {answer:?}");
    }
}

#[tokio::test]
async fn failure_beside_encryption_or_limit_is_a_failure() {
    for finding in ["password_protected", "decode_error", "max_total_size_exceeded"] {
        for codes in
            [format!("{finding}, antivirus_engine_error"), format!("scan_timeout, {finding}")]
        {
            for status in [204, 200, 500] {
                let answer =
                    scan(head(status, &format!("X-Error-Code: {codes}")), Fault::None).await;
                assert!(matches!(answer, Err(IcapError::Reported(_))), "{status}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn infection_in_encapsulated_header_outweighs_encryption_in_icap_header() {
    for (inner, kind, name) in [
        ("X-Virus-Name: Eicar", Infected, "Eicar"),
        ("X-Block-Reason: File type policy", Refused, "File type policy"),
        ("X: y", Encrypted, "password_protected"),
    ] {
        let response = modified("res", &format!("HTTP/1.1 403 Forbidden\r\n{inner}"), b"page");
        let response = with_header("X-Error-Code: password_protected", &response);
        assert_found(response, kind, name).await;
    }
}

#[tokio::test]
async fn encapsulated_header_and_trailer_report_kinds() {
    for (header, kind, name) in [
        ("X-Error-Code: password_protected", Encrypted, "password_protected"),
        ("X-Block-Reason: File type policy", Refused, "File type policy"),
        (
            "X-Infection-Found: Type=2; Threat=Container size violation",
            Limit,
            "Container size violation",
        ),
    ] {
        for status in ["200 OK", "403 Forbidden", "500 Error"] {
            let response = modified("res", &format!("HTTP/1.1 {status}\r\n{header}"), MEDIA);
            assert_found(response, kind, name).await;
        }
        assert_found(with_trailer(header, &sent_back(MEDIA)), kind, name).await;
    }
}

#[tokio::test]
async fn size_of_the_whole_file_is_too_large_and_sizes_inside_are_limits() {
    for (header, kind) in [
        ("X-Block-Reason: File too large", TooLarge),
        ("X-Block-Reason: Maximum file size exceeded", TooLarge),
        ("X-Blocked-Reason: The file exceeds the maximum scan size", TooLarge),
        ("X-Error-Code: file_too_large", TooLarge),
        ("X-Block-Reason: Archive too large", Limit),
        ("X-Block-Reason: Uncompressed size exceeds the limit", Limit),
        ("X-Blocked-Reason: Exceeded Archive Size", Limit),
        (
            "X-Infection-Found: Type=2; Threat=Maximum Extract Size exceeded - scan incomplete.;",
            Limit,
        ),
        (
            "X-Infection-Found: Type=2; Threat=Malformed container file found. File not scanned.",
            Limit,
        ),
        ("X-Block-Reason: Compressed file size", Limit),
    ] {
        let text = header.split_once(": ").unwrap().1;
        let name =
            text.split_once("Threat=").map_or(text, |(_, threat)| threat.trim_end_matches(';'));
        assert_found_with_any_status(header, kind, name).await;
    }
}

#[tokio::test]
async fn words_inside_of_words_and_names_of_files_select_no_kind_that_may_pass() {
    // Unknown words may be the name of a file, which the attacker chooses.
    for text in [
        "Unlimited player violation",
        "Resized picture policy",
        "Honest replayer",
        "Impartial violation",
        "Honesty policy violation",
        "File policy violation invoice encrypted",
        "Blocked file size limit.zip",
        "Blocked file (encrypted)",
        "Blocked file 'size limit'",
        "Blocked file \"password\"",
        "Blocked file: size",
        "Blocked file archive/encrypted",
        "Blocked file .encrypted",
        "Blocked file encrypted\u{0430}",
        "Kundenliste Size Limit",
    ] {
        for header in [
            format!("X-Infection-Found: Type=1; Resolution=2; Threat={text};"),
            format!("X-Infection-Found: Type=2; Threat={text}"),
            format!("X-Block-Reason: {text}"),
        ] {
            assert_found_with_any_status(&header, Refused, text).await;
        }
        let as_name = format!("X-Virus-Name: {text}");
        let kind = if text.contains("violation") { Refused } else { Infected };
        assert_found_with_any_status(&as_name, kind, text).await;
    }
    for name in ["Win.Trojan.Unlimited-1", "Player.Size.Limit", "Nonviolation encrypted", "Limit"] {
        let headers = format!("X-Infection-Found: Type=0; Resolution=2; Threat={name};");
        assert_found_with_any_status(&headers, Infected, name).await;
    }
}

#[tokio::test]
async fn repeated_field_of_an_infection_makes_it_an_infection() {
    for value in [
        "Type=2; Threat=Encrypted container violation; Threat=Eicar;",
        "Type=2; Threat=Encrypted container violation; Type=0;",
        "Type=2; Type=2; Threat=Encrypted container violation;",
    ] {
        let headers = format!("X-Infection-Found: {value}");
        assert_found_with_any_status(&headers, Infected, "Encrypted container violation").await;
    }
}

#[tokio::test]
async fn unscannable_contents_that_a_server_lets_pass_are_a_limit() {
    for value in ["SCANFAIL", "scanfail", "SCANFAIL; reason=maximum size"] {
        let headers = format!("X-MFE-PREVENT: {value}");
        assert_found_with_any_status(&headers, Limit, value).await;
    }
    let answer = scan(head(204, "X-MFE-PREVENT: SCANOK"), Fault::None).await;
    assert_eq!(answer.unwrap(), Answer::Clean);
}

/// The policy of each kind applies, so that a kind that passes does not hide another one.
#[tokio::test]
async fn answer_contains_all_kinds_that_may_pass() {
    let finding = |kind, name: &str| Finding { kind, name: name.to_owned() };
    let codes = "X-Error-Code: max_file_size_exceeded, decode_error, password_protected";
    for headers in [
        codes.to_owned(),
        format!("{codes}\r\nX-Blocked-Reason: Exceeded Archive Depth"),
        format!("{codes}\r\nX-Blocked: true\r\nX-Response-Info: Blocked"),
    ] {
        let answer = scan(head(204, &headers), Fault::None).await.unwrap();
        let limit =
            if headers.contains("Depth") { "Exceeded Archive Depth" } else { "decode_error" };
        let expected = Answer::Found {
            first: finding(Encrypted, "password_protected"),
            others: vec![finding(Limit, limit), finding(TooLarge, "max_file_size_exceeded")],
        };
        assert_eq!(answer, expected, "{headers}");
    }
    for (infection, kind) in
        [("X-Virus-Name: Eicar", Infected), ("X-Block-Reason: Policy", Refused)]
    {
        let answer =
            scan(head(204, &format!("{codes}\r\n{infection}")), Fault::None).await.unwrap();
        let Answer::Found { first, others } = answer else { panic!("clean") };
        assert_eq!((first.kind, others), (kind, Vec::new()));
    }
}

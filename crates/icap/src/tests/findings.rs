//! Headers that name a virus or a block, with every status, in every head and with unusual values.

use super::*;

#[tokio::test]
async fn names_finding_with_any_status() {
    let infection = "X-Infection-Found: Type=0; Resolution=2; Threat=Eicar-Test;";
    for (response, expected) in [
        (head(204, infection), "Eicar-Test"),
        (head(200, infection), "Eicar-Test"),
        (head(403, infection), "Eicar-Test"),
        (head(200, "x-virus-id: EICAR Test String"), "EICAR Test String"),
        (head(200, &format!("{infection}\r\nX-Virus-ID: Another")), "Another"),
        (head(200, "X-Infection-Found: strange"), "strange"),
        (head(200, "X-Virus-ID:\r\nX-Infection-Found: Type=2;"), "Type=2;"),
        (
            head(200, "X-Violations-Found: 1\r\n\tmedia\r\n\tEicar.Folded\r\n\t0\r\n\t0"),
            "Eicar.Folded",
        ),
        (head(200, "X-Violations-Found: 2"), "2"),
        // A space outside ASCII.
        (head(204, "X-Virus-ID: \u{a0}"), "unnamed finding"),
    ] {
        let shown = String::from_utf8_lossy(&response).into_owned();
        assert_eq!(name(scan(response, Fault::None).await), expected, "{shown}");
    }
}

/// Headers with which known servers report a finding, and its name.
const FOUND: [(&str, &str); 13] = [
    ("X-Infection-Found: Type=0; Resolution=2; Threat=Eicar-Test;", "Eicar-Test"),
    ("X-Virus-ID: Eicar", "Eicar"),
    ("X-Violations-Found: 1\r\n\tmedia\r\n\tEicar\r\n\t0\r\n\t0", "Eicar"),
    ("X-Virus-Name: Lab file\r\nX-Block-Reason: Malware found", "Lab file"),
    ("X-Block-Reason: Malware found\r\nX-Virus-Name:", "Malware found"),
    ("X-Block-Reason: Media Type (Block List)", "Media Type (Block List)"),
    ("X-Blocked: Virus found during virus scan", "Virus found during virus scan"),
    ("X-Blocked: true", "true"),
    ("X-Blocked-Reason: Infected", "Infected"),
    ("X-FSecure-Scan-Result: infected\r\nX-FSecure-Infection-Name: \"W97M\"", "\"W97M\""),
    ("X-Response-Info: Blocked", "blocked by the ICAP server"),
    ("X-Response-Info: BLOCKED", "blocked by the ICAP server"),
    ("X-Virus-ID: no threats\r\nX-Response-Info: blocked", "blocked by the ICAP server"),
];

/// Unusual headers that report a finding, and its name.
const UNUSUAL: [(&str, &str); 17] = [
    ("x-vIrUs-nAmE: Lab file", "Lab file"),
    ("X-Virus-Name:Lab file  ", "Lab file"),
    ("X-Virus-Name:\r\n\tLab file", "Lab file"),
    ("X-Virus-Name: \u{a0}", "unnamed finding"),
    ("X-Virus-Name: \u{444}\u{430}\u{439}\u{43b}", "\u{444}\u{430}\u{439}\u{43b}"),
    ("X-Virus-Name:\r\nX-Virus-Name: Lab file", "Lab file"),
    ("X-Virus-ID: no threats\r\nX-Virus-ID: Eicar", "Eicar"),
    ("X-Violations-Found: 0\r\nX-Violations-Found: 1", "1"),
    ("X-Violations-Found: 0\r\n\tmedia\r\n\tEicar\r\n\t0\r\n\t0", "Eicar"),
    ("X-Blocked: no\r\nX-Blocked: yes", "yes"),
    ("X-Response-Info: Allowed\r\nX-Response-Info: Blocked", "blocked by the ICAP server"),
    ("X-Response-Info: Request blocked: virus", "blocked by the ICAP server"),
    ("X-Response-Info: action=BLOCK", "blocked by the ICAP server"),
    ("X-Response-Info: not blocked\r\nX-Response-Info: blocked", "blocked by the ICAP server"),
    // Servers send these headers only with findings.
    ("X-Infection-Found:", "unnamed finding"),
    ("X-Violations-Found:", "unnamed finding"),
    ("X-Infection-Found: Type=0; Resolution=0; Threat=;", "Type=0; Resolution=0; Threat=;"),
];

/// Headers that known servers send with clean files, or that report no finding.
const NOTHING: [&str; 15] = [
    "X-Virus-ID: no threats\r\nX-Response-Info: passed",
    "X-Virus-ID: No Threat",
    "X-Virus-ID:\r\nX-Virus-Name: \t ",
    "X-Virus-Name: none",
    "X-Block-Reason:\r\nX-Block-Result: 0",
    "X-Violations-Found: 0",
    "X-Blocked: false\r\nX-Blocked: No\r\nX-Blocked: 0\r\nX-Blocked:",
    "X-Blocked-Reason:",
    "X-FSecure-Scan-Result: clean",
    "X-Response-Info: Allowed\r\nX-ICAP-Profile: Proxy",
    "X-Response-Info: unblocked",
    "X-Response-Info: Not Blocked",
    "X-Response-Info: blocklist checked",
    "X-Response-Desc: FILE: No risk",
    "X-Virus-Names: x\r\nX-Not-Blocked: y\r\nX-Blocked-By: z",
];

/// Builds a response that sends the file back, with additional headers in the HTTP head.
fn sent_back_with(header: &str) -> Vec<u8> {
    modified("res", &format!("HTTP/1.1 200 OK\r\n{header}"), MEDIA)
}

#[tokio::test]
async fn icap_header_overrides_status() {
    let other = |status: &str| format!("ICAP/1.0 {status}\r\n\r\n").into_bytes();
    let responses = [
        UNMODIFIED.into(),
        sent_back(MEDIA),
        modified("res", "HTTP/1.1 403 Forbidden", b"<html>Blocked</html>"),
        other("206 Partial Content"),
        other("404 Service not found"),
        other("500 Server error"),
        other("100 Continue"),
    ];
    for (header, expected) in FOUND.iter().chain(&UNUSUAL) {
        for response in &responses {
            let response = with_header(header, response);
            let shown = String::from_utf8_lossy(&response).into_owned();
            assert_eq!(name(scan(response, Fault::None).await), *expected, "{shown}");
        }
    }
}

#[tokio::test]
async fn http_head_and_trailer_report_findings() {
    for (header, expected) in FOUND.iter().chain(&UNUSUAL) {
        assert_eq!(name(scan(sent_back_with(header), Fault::None).await), *expected, "{header}");
        let blocked = format!("HTTP/1.1 403 Forbidden\r\n{header}");
        let blocked = modified("res", &blocked, b"<html>Blocked</html>");
        assert_eq!(name(scan(blocked, Fault::None).await), *expected, "{header}");
        let failed = modified("res", &format!("HTTP/1.1 500 Error\r\n{header}"), b"");
        assert_eq!(name(scan(failed, Fault::None).await), *expected, "{header}");
        let request = format!("POST http://x/ HTTP/1.1\r\n{header}");
        let request = modified("req", &request, MEDIA);
        let answer = scan_by_method(Method::Reqmod, request, Fault::None).await;
        assert_eq!(name(answer), *expected, "{header}");
        let trailer = with_trailer(header, &sent_back(MEDIA));
        assert_eq!(name(scan(trailer, Fault::None).await), *expected, "{header}");
    }
}

#[tokio::test]
async fn header_in_response_to_preview_is_a_finding() {
    for status in ["100 Continue", "204 No Content", "200 OK", "403 Forbidden"] {
        let response: Arc<str> =
            format!("ICAP/1.0 {status}\r\nX-Virus-Name: Lab file\r\n\r\n").into();
        let server = FakeServer::start(move |mut stream| {
            let response = Arc::clone(&response);
            async move {
                let request = read_request(&mut stream).await;
                let is_options = request.is_some_and(|request| request.head.starts_with("OPTIONS"));
                // Names in a response to OPTIONS do not concern a file.
                let options =
                    "ICAP/1.0 200 OK\r\nISTag: \"o\"\r\nPreview: 4\r\nX-Virus-Name: Lab file\r\n\
                     X-Response-Info: Options\r\nEncapsulated: null-body=0\r\n\r\n";
                let response = if is_options { options } else { &response };
                respond(&mut stream, response.as_bytes(), Fault::None).await;
                linger(stream).await;
            }
        })
        .await;
        let icap = client(&server);
        read_options(&icap).await;
        assert_eq!(icap.options().unwrap().istag, "\"o\"");
        assert_eq!(name(answer(&icap, MEDIA).await), "Lab file", "{status}");
    }
}

#[tokio::test]
async fn headers_without_finding_are_clean() {
    for header in NOTHING {
        let responses =
            [with_header(header, UNMODIFIED.as_bytes()), with_header(header, &sent_back(MEDIA))];
        for response in responses {
            let shown = String::from_utf8_lossy(&response).into_owned();
            assert_eq!(scan(response, Fault::None).await.unwrap(), Answer::Clean, "{shown}");
        }
        let answer = scan(sent_back_with(header), Fault::None).await;
        assert_eq!(answer.unwrap(), Answer::Clean, "{header}");
    }
}

#[tokio::test]
async fn rejects_invalid_trailer_and_invalid_request_headers() {
    let answer = scan(with_trailer("no header", &sent_back(MEDIA)), Fault::None).await;
    assert!(matches!(answer, Err(IcapError::BadResponse(_))), "{answer:?}");
    let response = modified("req", "POST http://x/ HTTP/1.1\r\nno header", MEDIA);
    let answer = scan_by_method(Method::Reqmod, response, Fault::None).await;
    assert!(matches!(answer, Err(IcapError::BadResponse(_))), "{answer:?}");
}

//! Headers that name a virus or a block: on every status, wherever they stand, whatever is in them.

use super::*;

#[tokio::test]
async fn what_was_found_has_a_name_whatever_else_is_said() {
    let head = |status: u16, header: &str| format!("ICAP/1.0 {status} x\r\n{header}\r\n\r\n");
    let infection = "X-Infection-Found: Type=0; Resolution=2; Threat=Eicar-Test;";
    for (said, called) in [
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
        // A space that is none of ASCII's.
        (head(204, "X-Virus-ID: \u{a0}"), "found, and not named"),
    ] {
        assert_eq!(name(of(said.clone(), Fault::None).await), called, "{said}");
    }
}

/// Headers by which one of the known servers says that it found something, and the name in them.
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

/// Odd ones, and their names.
const ODD: [(&str, &str); 14] = [
    ("x-vIrUs-nAmE: Lab file", "Lab file"),
    ("X-Virus-Name:Lab file  ", "Lab file"),
    ("X-Virus-Name:\r\n\tLab file", "Lab file"),
    ("X-Virus-Name: \u{a0}", "found, and not named"),
    ("X-Virus-Name: \u{444}\u{430}\u{439}\u{43b}", "\u{444}\u{430}\u{439}\u{43b}"),
    ("X-Virus-Name:\r\nX-Virus-Name: Lab file", "Lab file"),
    ("X-Virus-ID: no threats\r\nX-Virus-ID: Eicar", "Eicar"),
    ("X-Violations-Found: 0\r\nX-Violations-Found: 1", "1"),
    ("X-Violations-Found: 0\r\n\tmedia\r\n\tEicar\r\n\t0\r\n\t0", "Eicar"),
    ("X-Blocked: no\r\nX-Blocked: yes", "yes"),
    ("X-Response-Info: Allowed\r\nX-Response-Info: Blocked", "blocked by the ICAP server"),
    // These are there because something was found.
    ("X-Infection-Found:", "found, and not named"),
    ("X-Violations-Found:", "found, and not named"),
    ("X-Infection-Found: Type=0; Resolution=0; Threat=;", "Type=0; Resolution=0; Threat=;"),
];

/// Headers that known servers send about clean files, or that say nothing.
const NOTHING: [&str; 12] = [
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
    "X-Response-Desc: FILE: No risk",
    "X-Virus-Names: x\r\nX-Not-Blocked: y\r\nX-Blocked-By: z",
];

/// 200 with the media unchanged, and these headers in the head of the HTTP message.
fn media_with(header: &str) -> Vec<u8> {
    sent_back("res", &format!("HTTP/1.1 200 OK\r\n{header}"), MEDIA)
}

/// The same answer with these headers in the head of ICAP.
fn with(header: &str, answer: &[u8]) -> Vec<u8> {
    let line = answer.windows(2).position(|it| it == b"\r\n").unwrap();
    [&answer[..line], b"\r\n", header.as_bytes(), &answer[line..]].concat()
}

#[tokio::test]
async fn a_header_that_names_something_outweighs_the_status() {
    let other = |status: &str| format!("ICAP/1.0 {status}\r\n\r\n").into_bytes();
    let answers = [
        UNCHANGED.into(),
        media_back(MEDIA),
        sent_back("res", "HTTP/1.1 403 Forbidden", b"<html>Blocked</html>"),
        other("206 Partial Content"),
        other("404 Service not found"),
        other("500 Server error"),
        other("100 Continue"),
    ];
    for (header, called) in FOUND.iter().chain(&ODD) {
        for answer in &answers {
            let said = with(header, answer);
            let shown = String::from_utf8_lossy(&said).into_owned();
            assert_eq!(name(of(said, Fault::None).await), *called, "{shown}");
        }
    }
}

#[tokio::test]
async fn the_http_message_and_the_trailer_may_name_it_too() {
    for (header, called) in FOUND.iter().chain(&ODD) {
        assert_eq!(name(of(media_with(header), Fault::None).await), *called, "{header}");
        let blocked = format!("HTTP/1.1 403 Forbidden\r\n{header}");
        let blocked = sent_back("res", &blocked, b"<html>Blocked</html>");
        assert_eq!(name(of(blocked, Fault::None).await), *called, "{header}");
        let failed = sent_back("res", &format!("HTTP/1.1 500 Error\r\n{header}"), b"");
        assert_eq!(name(of(failed, Fault::None).await), *called, "{header}");
        let request = format!("POST http://x/ HTTP/1.1\r\n{header}");
        let request = sent_back("req", &request, MEDIA);
        let finding = of_method(Method::Reqmod, request, Fault::None, PATIENCE).await;
        assert_eq!(name(finding), *called, "{header}");
        let mut trailer = media_back(MEDIA);
        trailer.truncate(trailer.len() - 2);
        trailer.extend_from_slice(format!("{header}\r\n\r\n").as_bytes());
        assert_eq!(name(of(trailer, Fault::None).await), *called, "{header}");
    }
}

#[tokio::test]
async fn a_preview_is_answered_with_a_finding_like_the_whole() {
    for status in ["100 Continue", "204 No Content", "200 OK", "403 Forbidden"] {
        let said: Arc<str> = format!("ICAP/1.0 {status}\r\nX-Virus-Name: Lab file\r\n\r\n").into();
        let server = Fake::serving(move |mut stream| {
            let said = Arc::clone(&said);
            async move {
                let asked = read_request(&mut stream).await;
                let options = asked.is_some_and(|asked| asked.head.starts_with("OPTIONS"));
                // What an answer to OPTIONS names is no media's.
                let preview = "ICAP/1.0 200 OK\r\nISTag: \"o\"\r\nPreview: 4\r\nX-Virus-Name: Lab file\r\n\
                               X-Response-Info: Options\r\nEncapsulated: null-body=0\r\n\r\n";
                answer(&mut stream, if options { preview } else { &said }.as_bytes(), Fault::None)
                    .await;
                linger(stream).await;
            }
        })
        .await;
        let icap = asking(&[url(&server)], Method::Respmod, PATIENCE);
        icap.read_versions().await;
        assert_eq!(icap.versions().unwrap(), "\"o\"");
        assert_eq!(name(icap.scan(&specimen(MEDIA)).await), "Lab file", "{status}");
    }
}

#[tokio::test]
async fn what_servers_say_of_clean_files_is_clean() {
    for header in NOTHING {
        for said in [with(header, UNCHANGED.as_bytes()), with(header, &media_back(MEDIA))] {
            let shown = String::from_utf8_lossy(&said).into_owned();
            assert_eq!(of(said, Fault::None).await.unwrap(), Finding::Clean, "{shown}");
        }
        assert_eq!(of(media_with(header), Fault::None).await.unwrap(), Finding::Clean, "{header}");
    }
}

#[tokio::test]
async fn a_trailer_or_a_request_that_is_no_list_of_headers_is_a_failure() {
    let mut trailer = media_back(MEDIA);
    trailer.truncate(trailer.len() - 2);
    trailer.extend_from_slice(b"no header\r\n\r\n");
    assert!(matches!(of(trailer, Fault::None).await, Err(EngineFailure::NoSense(_))));
    let request = sent_back("req", "POST http://x/ HTTP/1.1\r\nno header", MEDIA);
    let finding = of_method(Method::Reqmod, request, Fault::None, PATIENCE).await;
    assert!(matches!(finding, Err(EngineFailure::NoSense(_))), "{finding:?}");
}

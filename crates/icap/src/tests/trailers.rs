//! Messages that are read to their end: findings in the trailers of all bodies, also where a head reports something that
//! may pass, and messages that are incomplete or too long.

use super::*;
use FindingKind::{Encrypted, Infected, Refused, TooLarge};

const PAGE: &[u8] = b"<html>Not scanned</html>";

/// Responses that are not final before their trailer.
fn responses() -> Vec<(&'static str, Vec<u8>)> {
    let code = "X-Error-Code: password_protected";
    let page = |status: &str| modified("res", &format!("HTTP/1.1 {status}"), PAGE);
    let icap_status = |status: &str, response: &[u8]| {
        String::from_utf8(response.to_vec()).unwrap().replacen("200 OK", status, 1).into_bytes()
    };
    vec![
        ("file sent back", sent_back(MEDIA)),
        ("encrypted", with_header(code, &sent_back(MEDIA))),
        ("encrypted, with a page", with_header(code, &page("403 Forbidden"))),
        ("encrypted, with another file", with_header(code, &sent_back(PAGE))),
        ("encrypted in the HTTP head", page(&format!("200 OK\r\n{code}"))),
        ("error code", with_header("X-Error-Code: scan_timeout", &page("500 Error"))),
        ("HTTP failure", page("500 Error")),
        ("HTTP too large", page("413 Content Too Large")),
        ("ICAP failure", icap_status("500 Error", &page("500 Error"))),
        ("ICAP too large", icap_status("413 Too Large", &page("413 Content Too Large"))),
    ]
}

#[tokio::test]
async fn trailers_of_all_bodies_are_read() {
    for (case, response) in responses() {
        println!("{case}");
        assert_found(with_trailer("X-Virus-Name: Eicar", &response), Infected, "Eicar").await;
        let trailer = "X-Error-Code: file_type_blocked";
        assert_found(with_trailer(trailer, &response), Refused, "file_type_blocked").await;
    }
}

#[tokio::test]
async fn http_head_of_any_icap_status_is_read() {
    for status in ["404 Not found", "413 Too Large", "500 Error", "206 Partial Content"] {
        let response = modified("res", "HTTP/1.1 200 OK\r\nX-Virus-Name: Eicar", PAGE);
        let text = String::from_utf8(response).unwrap().replacen("200 OK", status, 1);
        assert_found(text.into_bytes(), Infected, "Eicar").await;
    }
}

#[tokio::test]
async fn failure_in_a_trailer_outweighs_what_may_pass() {
    for (case, response) in responses() {
        let response = with_trailer("X-Error-Code: antivirus_engine_error", &response);
        let answer = scan(response, Fault::None).await;
        assert!(matches!(answer, Err(IcapError::Reported(_))), "{case}: {answer:?}");
    }
}

#[tokio::test]
async fn incomplete_message_counts_only_where_the_server_examined_nothing() {
    for (case, response) in responses() {
        let answer = scan(&response[..response.len() - 1], Fault::None).await;
        if case.ends_with("too large") {
            let kinds: Vec<_> = answer.as_ref().unwrap().findings().map(|f| f.kind).collect();
            assert_eq!(kinds, [TooLarge], "{case}");
        } else {
            assert!(answer.is_err(), "{case}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn second_response_after_a_finding_that_may_pass_is_a_bad_response() {
    let response = head(204, "X-Error-Code: password_protected");
    assert_found(response.clone(), Encrypted, "password_protected").await;
    let next = b"ICAP/1.0 200 OK\r\nX-Virus-ID: Eicar\r\n\r\n".as_slice();
    let answer = scan([&response, next].concat(), Fault::None).await;
    assert!(matches!(answer, Err(IcapError::BadResponse(_))), "{answer:?}");
    // "100 Continue" announces another response.
    let answer = scan(head(100, "X-Error-Code: password_protected"), Fault::None).await;
    assert!(matches!(answer, Err(IcapError::Reported(_))), "{answer:?}");
}

#[tokio::test]
async fn body_without_end_is_a_bad_response() {
    let server = FakeServer::start(|mut stream| async move {
        let mut request = read_request(&mut stream).await.unwrap();
        read_rest(&mut stream, &mut request).await;
        let head =
            "ICAP/1.0 200 OK\r\nX-Error-Code: password_protected\r\nEncapsulated: res-body=0";
        let _ = stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await;
        let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await;
    let failure = answer(&client(&server), MEDIA).await.unwrap_err();
    assert!(matches!(failure, IcapError::BadResponse(_)), "{failure}");
}

//! Answers that arrive before the server was sent the whole file.

use super::*;
use FindingKind::{Encrypted, Infected, Limit, Refused, TooLarge};

/// Headers, and the kind that they report.
const FINDINGS: [(&str, FindingKind); 8] = [
    ("X-Virus-ID: Eicar", Infected),
    ("X-Error-Code: file_type_blocked", Refused),
    ("X-Block-Reason: File type policy", Refused),
    ("X-Error-Code: max_file_size_exceeded", TooLarge),
    ("X-Error-Code: password_protected", Encrypted),
    ("X-Infection-Found: Type=2; Threat=Encrypted container violation;", Encrypted),
    ("X-Error-Code: decode_error", Limit),
    ("X-MFE-PREVENT: SCANFAIL", Limit),
];

/// Asserts that an answer to a part of the file holds only if nothing depends on the rest.
fn assert_holds(answer: Result<Answer, IcapError>, kind: FindingKind, case: &str) {
    match (answer, kind) {
        (Ok(Answer::Found { first, .. }), Infected | Refused | TooLarge) => {
            assert_eq!(first.kind, kind, "{case}");
        }
        (Err(IcapError::PrematureAnswer), Encrypted | Limit) => {}
        (answer, kind) => panic!("{case}: {kind:?}, {answer:?}"),
    }
}

/// Scans a large file with a server that responds after the head of the request.
async fn scan_with_early_response(response: Vec<u8>) -> Result<Answer, IcapError> {
    let response: Arc<[u8]> = response.into();
    let server = FakeServer::start(move |mut stream| {
        let response = Arc::clone(&response);
        async move {
            let _ = read_head(&mut stream).await;
            respond(&mut stream, &response, Fault::None).await;
            // The rest is never read, so that the client cannot send all of it.
            std::future::pending::<()>().await;
        }
    })
    .await;
    let icap = client(&server);
    answer(&icap, &vec![7; 64 << 20]).await
}

#[tokio::test]
async fn answer_before_the_end_of_the_file_counts_only_if_the_rest_changes_nothing() {
    let answer = scan_with_early_response(UNMODIFIED.into()).await;
    assert!(matches!(answer, Err(IcapError::PrematureAnswer)), "{answer:?}");
    for (headers, kind) in FINDINGS {
        for status in [200, 500] {
            let answer = scan_with_early_response(head(status, headers)).await;
            assert_holds(answer, kind, headers);
        }
    }
    for (status, kind) in [(403, Refused), (413, TooLarge)] {
        assert_holds(scan_with_early_response(head(status, "X: y")).await, kind, "status");
    }
}

/// Scans a file with a server that responds after a preview of four bytes.
async fn scan_with_response_to_preview(
    media: &[u8],
    response: Vec<u8>,
) -> Result<Answer, IcapError> {
    let server = FakeServer::start(move |mut stream| {
        let response = response.clone();
        async move {
            let request = read_request(&mut stream).await;
            let is_options = request.is_some_and(|request| request.head.starts_with("OPTIONS"));
            let options = "ICAP/1.0 200 OK\r\nISTag: \"o\"\r\nPreview: 4\r\n\r\n".as_bytes();
            let response = if is_options { options } else { &response };
            respond(&mut stream, response, Fault::None).await;
            linger(stream).await;
        }
    })
    .await;
    let icap = client(&server);
    read_options(&icap).await;
    answer(&icap, media).await
}

#[tokio::test]
async fn answer_to_a_preview_counts_only_if_the_rest_changes_nothing() {
    // RFC 3507 section 4.5: a server may decide after the preview that it requested.
    let answer = scan_with_response_to_preview(MEDIA, UNMODIFIED.into()).await;
    assert_eq!(answer.unwrap(), Answer::Clean);
    for (headers, kind) in FINDINGS {
        for status in [200, 204, 500] {
            let response = head(status, headers);
            let answer = scan_with_response_to_preview(MEDIA, response.clone()).await;
            assert_holds(answer, kind, headers);
            // The preview is the whole file.
            let answer = scan_with_response_to_preview(&MEDIA[..4], response).await.unwrap();
            let kinds: Vec<_> = answer.findings().map(|finding| finding.kind).collect();
            assert_eq!(kinds, [kind], "{headers}");
        }
    }
    // "100 Continue" with a finding is the answer, not a request for the rest.
    for (headers, kind) in FINDINGS {
        let answer = scan_with_response_to_preview(MEDIA, head(100, headers)).await;
        if kind.is_final() || kind == TooLarge {
            assert_holds(answer, kind, headers);
        } else {
            assert!(answer.is_err(), "{headers}: {answer:?}");
        }
    }
}

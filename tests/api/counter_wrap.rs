//! Rejection of encrypted media whose counter would wrap its low 64 bits. Such media decrypts to one plaintext
//! in clients with a 64-bit counter and to another in clients with a 128-bit counter.

use std::{io::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Attachment, MockHomeserver, MockMedia, ScannerBuilder, ScannerProcess, attachment::seal,
    client::send, eicar, homeserver::Gate, png,
};

const DECRYPTION_ERROR: (u16, &str) = (400, "MCS_MEDIA_FAILED_TO_DECRYPT");

/// Rejects the EICAR test file and counts its runs.
const SCRIPT: &str = r#"
echo run >> "$MARKS/runs"
if grep -q 'EICAR-STANDARD-ANTIVIRUS' "$1"; then echo "Eicar-Test-Signature"; exit 1; fi
"#;

const NOT_CLEAN_INFO: &str = "File not clean. Output: 'Eicar-Test-Signature'";

/// Asserts that both routes reject the body, plain and sealed.
async fn assert_rejected(scanner: &ScannerProcess, body: &Value) {
    let sealed = seal(&scanner.client.public_key().await, body.to_string().as_bytes());
    for route in ["/scan_encrypted", "/download_encrypted"] {
        for body in [body, &sealed] {
            scanner
                .client
                .post(route, body)
                .await
                .assert_error(DECRYPTION_ERROR.0, DECRYPTION_ERROR.1);
        }
    }
}

/// Returns the value of a metric from the operations listener.
async fn metric(scanner: &ScannerProcess, name: &str) -> u64 {
    let operations = scanner.operations_client().await;
    let page = send(operations.request_outside_prefix(Method::GET, "/metrics")).await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim().parse().unwrap()
}

/// Asserts that nothing was scanned or cached and that no job remains.
async fn assert_no_trace(scanner: &ScannerProcess) {
    assert_eq!(scanner.dir.mark_count("runs"), 0, "a file was scanned");
    for kind in ["media", "verdict", "body"] {
        let name = format!("mcs_cache_entries{{kind=\"{kind}\"}}");
        assert_eq!(metric(scanner, &name).await, 0, "{kind}");
    }
    scanner.wait_until_idle().await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzipped(bytes: &[u8]) -> MockMedia {
    MockMedia::new("image/png", gzip(bytes)).with_header("content-encoding", "gzip")
}

/// Media that is sent chunked, without a Content-Length.
fn chunked(bytes: &[u8]) -> MockMedia {
    MockMedia::new("image/png", "").dripping(bytes.to_vec(), 1, Duration::ZERO)
}

fn mxc(media: &str) -> String {
    format!("mxc://{media}")
}

#[tokio::test]
async fn rejects_reported_file() {
    let case: Value = serde_json::from_str(include_str!("cases/iv-wrap-eicar.json")).unwrap();
    let ciphertext = STANDARD.decode(case["body"].as_str().unwrap()).unwrap();
    let body = json!({ "file": case["file"] });
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, SCRIPT).await;

    for media in [
        MockMedia::new("image/png", ciphertext.clone()),
        chunked(&ciphertext),
        gzipped(&ciphertext),
    ] {
        homeserver.add_media("wrap0", media);
        assert_rejected(&scanner, &body).await;
    }
    assert_no_trace(&scanner).await;
}

#[tokio::test]
async fn rejects_wrapping_counter_by_content_length_without_reading_body() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, SCRIPT).await;
    let attachment = Attachment::encrypt_before_wrap(&eicar(), 1, 4);
    // The server never sends the rest of the body. A scanner that reads it times out.
    let stalled =
        MockMedia::new("image/png", "").stalling_after(attachment.ciphertext[..16].to_vec());
    let length = attachment.ciphertext.len().to_string();
    let media = homeserver.add_media("stalled", stalled.with_header("content-length", &length));

    assert_rejected(&scanner, &attachment.body(&mxc(&media))).await;
    assert_eq!(metric(&scanner, "mcs_fetched_bytes_total").await, 0);
    assert_no_trace(&scanner).await;
}

#[tokio::test]
async fn rejects_wrapping_counter_by_received_bytes() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, SCRIPT).await;
    // Compressed, the ciphertext is smaller than the part before the wrap.
    let compressible = Attachment::from_ciphertext(&[0; 4096], 2, 255);
    assert!(gzip(&compressible.ciphertext).len() < 255 * 16);
    let attachment = Attachment::encrypt_before_wrap(&eicar(), 3, 4);

    for (attachment, media) in [
        (&compressible, gzipped(&compressible.ciphertext)),
        (&compressible, chunked(&compressible.ciphertext)),
        (&attachment, chunked(&attachment.ciphertext)),
        (&attachment, gzipped(&attachment.ciphertext)),
    ] {
        let media = homeserver.add_media("counted", media);
        assert_rejected(&scanner, &attachment.body(&mxc(&media))).await;
    }
    assert_no_trace(&scanner).await;
}

#[tokio::test]
async fn scans_media_whose_counter_does_not_wrap() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, SCRIPT).await;
    // Each seed gives different content, so that each is scanned.
    for (seed, plaintext, blocks) in
        [(1, b"".to_vec(), 1), (2, vec![2; 16], 1), (3, vec![3; 17], 2), (4, vec![4; 32], 2)]
    {
        let attachment = Attachment::encrypt_before_wrap(&plaintext, seed, blocks);
        let media = homeserver.add_bytes("last", attachment.ciphertext.clone());
        let body = attachment.body(&mxc(&media));
        scanner.client.post("/scan_encrypted", &body).await.assert_clean();
        let response = scanner.client.post("/download_encrypted", &body).await;
        response.assert_media(&attachment.ciphertext);
    }
    // 16 bytes are larger when compressed, but the limit applies to the decoded size.
    let attachment = Attachment::encrypt_before_wrap(&[5; 16], 5, 1);
    let media = homeserver.add_media("zipped", gzipped(&attachment.ciphertext));
    scanner.client.post("/scan_encrypted", &attachment.body(&mxc(&media))).await.assert_clean();

    // The EICAR file has five blocks.
    for (seed, blocks) in [(6, 5), (7, 1 << 40), (8, u64::MAX / 3), (9, 1 << 63)] {
        let attachment = Attachment::encrypt_before_wrap(&eicar(), seed, blocks);
        for media in [
            MockMedia::new("image/png", attachment.ciphertext.clone()),
            chunked(&attachment.ciphertext),
            gzipped(&attachment.ciphertext),
        ] {
            let media = homeserver.add_media(&format!("eicar{seed}"), media);
            let body = attachment.body(&mxc(&media));
            scanner.client.post("/scan_encrypted", &body).await.assert_not_clean(NOT_CLEAN_INFO);
        }
    }
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn rejection_is_not_cached_and_does_not_affect_valid_iv() {
    let homeserver = MockHomeserver::start().await;
    for max_file_size in [0, 1_000_000] {
        let scanner = ScannerBuilder::new(SCRIPT)
            .homeserver(&homeserver)
            .config(&format!("result_cache.max_file_size = {max_file_size}"))
            .start()
            .await;
        let valid = Attachment::encrypt(&png(), 1);
        // The same ciphertext, and therefore the same hash.
        let wrapping = Attachment::from_ciphertext(&valid.ciphertext, 1, 1);
        let media = homeserver.add_bytes("same", valid.ciphertext.clone());
        let (valid_body, wrapping_body) = (valid.body(&mxc(&media)), wrapping.body(&mxc(&media)));

        let before = homeserver.download_count();
        assert_rejected(&scanner, &wrapping_body).await;
        assert_eq!(homeserver.download_count() - before, 4, "a rejection was cached");
        assert_no_trace(&scanner).await;

        scanner.client.post("/scan_encrypted", &valid_body).await.assert_clean();
        let response = scanner.client.post("/download_encrypted", &valid_body).await;
        response.assert_media(&valid.ciphertext);
        // The valid request's verdict and possibly its body are cached now.
        assert_rejected(&scanner, &wrapping_body).await;
        let response = scanner.client.post("/download_encrypted", &valid_body).await;
        response.assert_media(&valid.ciphertext);
        assert_eq!(scanner.dir.mark_count("runs"), 1);
        scanner.wait_until_idle().await;
    }
}

#[tokio::test]
async fn rejection_is_returned_to_authorised_requests_only() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, SCRIPT).await;
    let gate = Gate::default();
    let attachment = Attachment::encrypt_before_wrap(&eicar(), 1, 4);
    let media = MockMedia::new("image/png", attachment.ciphertext.clone()).gated_by(&gate);
    let media = homeserver.add_media("gated", media);
    let body = attachment.body(&mxc(&media));

    let first = scanner.client.post("/scan_encrypted", &body);
    let unauthorised = async {
        homeserver.wait_for_requests(1).await;
        let request = scanner.client.request(Method::POST, "/scan_encrypted");
        let request = send(request.bearer_auth("bad-token").body(body.to_string()));
        let joined = async {
            scanner.wait_for_log("joined a job in progress for the same media", 1).await;
            gate.open();
        };
        tokio::join!(request, joined).0
    };
    let (first, unauthorised) = tokio::join!(first, unauthorised);
    first.assert_error(DECRYPTION_ERROR.0, DECRYPTION_ERROR.1);
    unauthorised.assert_error(401, "M_UNKNOWN_TOKEN");
    assert_no_trace(&scanner).await;
}

//! Handling of contents that need a password, for each value of `scan.on_encrypted`.

use crate::harness::{Attachment, MockHomeserver, ScannerBuilder, ScannerProcess, eicar};

const ENCRYPTED_ZIP: &[u8] = include_bytes!("../../fuzz/corpus/encrypted/encrypted.zip");
const ENCRYPTED_DOCUMENT: &[u8] = include_bytes!("../../fuzz/corpus/encrypted/encrypted.docx");
const PLAIN_ZIP: &[u8] = include_bytes!("../../fuzz/corpus/encrypted/plain.zip");

/// Counts its runs, rejects files that contain the EICAR test string, and fails on files that contain `fail here`.
const SCRIPT: &str = r#"
echo run >> "$MARKS/runs"
if grep -q EICAR-STANDARD "$1"; then echo Eicar; exit 1; fi
if grep -q "fail here" "$1"; then exit 127; fi
"#;

async fn start_scanner(homeserver: &MockHomeserver, config: &str) -> ScannerProcess {
    ScannerBuilder::new(SCRIPT).homeserver(homeserver).config(config).start().await
}

/// Puts `prefix` before an archive. A ZIP archive may start after other bytes.
fn with_prefix(zip: &[u8], prefix: &[u8]) -> Vec<u8> {
    [prefix, zip].concat()
}

#[tokio::test]
async fn rejects_encrypted_contents_by_default() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start_scanner(&homeserver, "").await;
    for (id, bytes, format) in
        [("zip", ENCRYPTED_ZIP, "zip"), ("docx", ENCRYPTED_DOCUMENT, "OLE EncryptedPackage")]
    {
        let media = homeserver.add_bytes(id, bytes);
        let info = format!("File not clean. Output: 'encrypted contents ({format})'");
        scanner.client.get(&format!("/scan/{media}")).await.assert_not_clean(&info);
        let download = scanner.client.get(&format!("/download/{media}")).await;
        download.assert_error(403, "MCS_MEDIA_NOT_CLEAN");
        assert_eq!(download.json()["info"], info);
    }
    assert_eq!(
        scanner.dir.mark_count("runs"),
        2,
        "expected one scan per file, with cached verdicts"
    );
    let media = homeserver.add_bytes("plain", PLAIN_ZIP);
    scanner.client.get(&format!("/download/{media}")).await.assert_media(PLAIN_ZIP);
}

#[tokio::test]
async fn on_encrypted_fail_returns_422_on_every_route() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start_scanner(
        &homeserver,
        "scan.on_encrypted = \"fail\"\nresult_cache.failure_ttl = \"1h\"",
    )
    .await;
    let media = homeserver.add_bytes("zip", ENCRYPTED_ZIP);
    for route in ["scan", "download", "thumbnail"] {
        let query = if route == "thumbnail" { "?width=1" } else { "" };
        let response = scanner.client.get(&format!("/{route}/{media}{query}")).await;
        response.assert_error(422, "M_UNKNOWN");
        let info = "The contents need a password and could not be examined";
        assert_eq!(response.json()["info"], info);
    }
    let attachment = Attachment::encrypt(ENCRYPTED_ZIP, 1);
    let sealed = homeserver.add_bytes("sealed", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{sealed}"));
    for route in ["/scan_encrypted", "/download_encrypted"] {
        scanner.client.post(route, &body).await.assert_error(422, "M_UNKNOWN");
    }
    assert_eq!(scanner.dir.mark_count("runs"), 1, "failures must be cached by content");
}

#[tokio::test]
async fn on_encrypted_pass_returns_verdict_of_engines() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start_scanner(&homeserver, "scan.on_encrypted = \"pass\"").await;
    let media = homeserver.add_bytes("zip", ENCRYPTED_ZIP);
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    scanner.client.get(&format!("/download/{media}")).await.assert_media(ENCRYPTED_ZIP);
    let media = homeserver.add_bytes("failing", with_prefix(ENCRYPTED_ZIP, b"fail here"));
    scanner.client.get(&format!("/scan/{media}")).await.assert_error(500, "M_UNKNOWN");
}

#[tokio::test]
async fn infection_takes_precedence_over_encryption_and_encryption_over_failure() {
    let homeserver = MockHomeserver::start().await;
    let encrypted = "File not clean. Output: 'encrypted contents (zip)'";
    for setting in ["refuse", "fail", "pass"] {
        let config = format!("scan.on_encrypted = {setting:?}");
        let scanner = start_scanner(&homeserver, &config).await;
        let media = homeserver.add_bytes("infected", with_prefix(ENCRYPTED_ZIP, &eicar()));
        let infected = "File not clean. Output: 'Eicar'";
        scanner.client.get(&format!("/scan/{media}")).await.assert_not_clean(infected);
        let media = homeserver.add_bytes("failing", with_prefix(ENCRYPTED_ZIP, b"fail here"));
        let response = scanner.client.get(&format!("/scan/{media}")).await;
        match setting {
            "refuse" => response.assert_not_clean(encrypted),
            "fail" => response.assert_error(422, "M_UNKNOWN"),
            _ => response.assert_error(500, "M_UNKNOWN"),
        }
    }
}

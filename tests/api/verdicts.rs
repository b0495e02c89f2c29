//! End-to-end scans of clean and infected media, plain and encrypted: verdicts and downloads.

use crate::harness::{
    Attachment, MockHomeserver, ScannerProcess, attachment::seal, eicar, noise, png,
};

/// Rejects the EICAR test file and counts its runs.
const EICAR_SCRIPT: &str = r#"
echo run >> "$MARKS/runs"
if grep -q 'EICAR-STANDARD-ANTIVIRUS' "$1"; then echo "Eicar-Test-Signature"; exit 1; fi
"#;

#[tokio::test]
async fn returns_clean_media_unchanged_and_scans_once() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, EICAR_SCRIPT).await;
    let media = homeserver.add_bytes("clean", png());

    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());

    assert_eq!(scanner.dir.mark_count("runs"), 1);
    assert_eq!(homeserver.download_count(), 1);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn returns_403_with_verdict_for_infected_media() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, EICAR_SCRIPT).await;
    let media = homeserver.add_bytes("bad", eicar());

    let download = scanner.client.get(&format!("/download/{media}")).await;
    download.assert_error(403, "MCS_MEDIA_NOT_CLEAN");
    let info = "File not clean. Output: 'Eicar-Test-Signature'";
    assert_eq!(download.json()["info"], info);
    scanner.client.get(&format!("/scan/{media}")).await.assert_not_clean(info);
    scanner
        .client
        .get(&format!("/thumbnail/{media}?width=1"))
        .await
        .assert_error(403, "MCS_MEDIA_NOT_CLEAN");

    // The thumbnail has the same bytes, so its verdict comes from the cache.
    assert_eq!(scanner.dir.mark_count("runs"), 1);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn scans_plaintext_and_returns_ciphertext_of_encrypted_media() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, EICAR_SCRIPT).await;
    for (id, plaintext, seed) in [("small", png(), 1), ("large", noise(2, 3_000_000), 2)] {
        let attachment = Attachment::encrypt(&plaintext, seed);
        let media = homeserver.add_bytes(id, attachment.ciphertext.clone());
        let body = attachment.body(&format!("mxc://{media}"));

        let response = scanner.client.post("/download_encrypted", &body).await;
        response.assert_media(&attachment.ciphertext);
        assert_eq!(response.header("content-type"), "application/octet-stream");
        scanner.client.post("/scan_encrypted", &body).await.assert_clean();
        // Without decryption, the same media is different content.
        scanner
            .client
            .get(&format!("/download/{media}"))
            .await
            .assert_media(&attachment.ciphertext);
    }
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn returns_403_for_infected_encrypted_media_with_plain_and_sealed_body() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, EICAR_SCRIPT).await;
    let attachment = Attachment::encrypt(&eicar(), 3);
    let media = homeserver.add_bytes("bad", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{media}"));
    let sealed = seal(&scanner.client.public_key().await, body.to_string().as_bytes());

    for body in [&body, &sealed] {
        let verdict = scanner.client.post("/scan_encrypted", body).await;
        verdict.assert_not_clean("File not clean. Output: 'Eicar-Test-Signature'");
        let download = scanner.client.post("/download_encrypted", body).await;
        download.assert_error(403, "MCS_MEDIA_NOT_CLEAN");
    }
    assert_eq!(scanner.dir.mark_count("runs"), 1, "both bodies refer to the same media");
}

#[tokio::test]
async fn verdict_depends_on_decryption_key() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, EICAR_SCRIPT).await;
    let attachment = Attachment::encrypt(&eicar(), 4);
    let media = homeserver.add_bytes("bad", attachment.ciphertext.clone());
    let mxc = format!("mxc://{media}");

    // With another key the plaintext is noise, and clean.
    let (right, wrong) = (attachment.body(&mxc), attachment.with_another_key().body(&mxc));
    let (first, second) = tokio::join!(
        scanner.client.post("/scan_encrypted", &right),
        scanner.client.post("/scan_encrypted", &wrong),
    );
    first.assert_not_clean("File not clean. Output: 'Eicar-Test-Signature'");
    second.assert_clean();
    assert_eq!(scanner.dir.mark_count("runs"), 2);
}

#[tokio::test]
async fn rejects_ciphertext_with_wrong_hash_without_scanning() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, EICAR_SCRIPT).await;
    let attachment = Attachment::encrypt(&png(), 5);
    let media = homeserver.add_bytes("swapped", noise(5, 1000));
    let body = attachment.body(&format!("mxc://{media}"));

    for path in ["/scan_encrypted", "/download_encrypted"] {
        let response = scanner.client.post(path, &body).await;
        response.assert_error(400, "MCS_MEDIA_FAILED_TO_DECRYPT");
    }
    assert_eq!(scanner.dir.mark_count("runs"), 0);
    scanner.wait_until_idle().await;
}

//! A media scanned end to end: clean and not, plain and encrypted, media and verdict.

use crate::harness::{Attachment, Homeserver, Scanner, attachment::seal, eicar, noise, png};

/// Refuses the EICAR test file, and notes each run.
const EICAR_SCRIPT: &str = r#"
echo run >> "$MARKS/runs"
if grep -q 'EICAR-STANDARD-ANTIVIRUS' "$1"; then echo "Eicar-Test-Signature"; exit 1; fi
"#;

#[tokio::test]
async fn a_clean_media_is_returned_byte_for_byte_and_scanned_once() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, EICAR_SCRIPT).await;
    let media = homeserver.has_bytes("clean", png());

    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    scanner.client.get(&format!("/download/{media}")).await.is_media(&png());
    scanner.client.get(&format!("/download/{media}")).await.is_media(&png());

    assert_eq!(scanner.place.marks("runs"), 1);
    assert_eq!(homeserver.downloads(), 1);
    scanner.idle().await;
}

#[tokio::test]
async fn an_infected_media_is_refused_and_its_verdict_told() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, EICAR_SCRIPT).await;
    let media = homeserver.has_bytes("bad", eicar());

    let download = scanner.client.get(&format!("/download/{media}")).await;
    download.is_error(403, "MCS_MEDIA_NOT_CLEAN");
    let info = "File not clean. Output: 'Eicar-Test-Signature'";
    assert_eq!(download.json()["info"], info);
    scanner.client.get(&format!("/scan/{media}")).await.is_not_clean(info);
    scanner.client.get(&format!("/thumbnail/{media}?width=1")).await.is_error(403, "MCS_MEDIA_NOT_CLEAN");

    // The thumbnail has the same bytes here: its verdict was known.
    assert_eq!(scanner.place.marks("runs"), 1);
    scanner.idle().await;
}

#[tokio::test]
async fn an_encrypted_media_is_scanned_in_the_clear_and_returned_as_it_was() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, EICAR_SCRIPT).await;
    for (id, plaintext, seed) in [("small", png(), 1), ("large", noise(2, 3_000_000), 2)] {
        let attachment = Attachment::encrypt(&plaintext, seed);
        let media = homeserver.has_bytes(id, attachment.ciphertext.clone());
        let body = attachment.body(&format!("mxc://{media}"));

        let reply = scanner.client.post("/download_encrypted", &body).await;
        reply.is_media(&attachment.ciphertext);
        assert_eq!(reply.header("content-type"), "application/octet-stream");
        scanner.client.post("/scan_encrypted", &body).await.is_clean();
        // Plain, the same media is noise, and another content.
        scanner.client.get(&format!("/download/{media}")).await.is_media(&attachment.ciphertext);
    }
    scanner.idle().await;
}

#[tokio::test]
async fn an_infected_encrypted_media_is_refused_in_the_clear_and_sealed() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, EICAR_SCRIPT).await;
    let attachment = Attachment::encrypt(&eicar(), 3);
    let media = homeserver.has_bytes("bad", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{media}"));
    let sealed = seal(&scanner.client.public_key().await, body.to_string().as_bytes());

    for body in [&body, &sealed] {
        let verdict = scanner.client.post("/scan_encrypted", body).await;
        verdict.is_not_clean("File not clean. Output: 'Eicar-Test-Signature'");
        let download = scanner.client.post("/download_encrypted", body).await;
        download.is_error(403, "MCS_MEDIA_NOT_CLEAN");
    }
    assert_eq!(scanner.place.marks("runs"), 1, "both bodies name the same media");
}

#[tokio::test]
async fn who_has_another_key_gets_another_answer() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, EICAR_SCRIPT).await;
    let attachment = Attachment::encrypt(&eicar(), 4);
    let media = homeserver.has_bytes("bad", attachment.ciphertext.clone());
    let mxc = format!("mxc://{media}");

    // With another key the plaintext is noise, and clean.
    let (right, wrong) = (attachment.body(&mxc), attachment.with_another_key().body(&mxc));
    let (first, second) = tokio::join!(
        scanner.client.post("/scan_encrypted", &right),
        scanner.client.post("/scan_encrypted", &wrong),
    );
    first.is_not_clean("File not clean. Output: 'Eicar-Test-Signature'");
    second.is_clean();
    assert_eq!(scanner.place.marks("runs"), 2);
}

#[tokio::test]
async fn a_ciphertext_that_is_not_the_one_named_is_never_scanned() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, EICAR_SCRIPT).await;
    let attachment = Attachment::encrypt(&png(), 5);
    let media = homeserver.has_bytes("swapped", noise(5, 1000));
    let body = attachment.body(&format!("mxc://{media}"));

    for path in ["/scan_encrypted", "/download_encrypted"] {
        let reply = scanner.client.post(path, &body).await;
        reply.is_error(400, "MCS_MEDIA_FAILED_TO_DECRYPT");
    }
    assert_eq!(scanner.place.marks("runs"), 0);
    scanner.idle().await;
}

//! Contents that need a password, by each value of `scan.on_encrypted`.

use crate::harness::{Attachment, Builder, Homeserver, Scanner, eicar};

const ZIP: &[u8] = include_bytes!("../../fuzz/corpus/encrypted/encrypted.zip");
const DOCUMENT: &[u8] = include_bytes!("../../fuzz/corpus/encrypted/encrypted.docx");
const PLAIN: &[u8] = include_bytes!("../../fuzz/corpus/encrypted/plain.zip");

/// Refuses what has the EICAR test file in it, and fails where it is told to.
const SCRIPT: &str = r#"
echo run >> "$MARKS/runs"
if grep -q EICAR-STANDARD "$1"; then echo Eicar; exit 1; fi
if grep -q "fail here" "$1"; then exit 127; fi
"#;

async fn scanner(homeserver: &Homeserver, config: &str) -> Scanner {
    Builder::new(SCRIPT).homeserver(homeserver).config(config).start().await
}

fn with(zip: &[u8], more: &[u8]) -> Vec<u8> {
    // Before the archive: it is found behind other bytes.
    [more, zip].concat()
}

#[tokio::test]
async fn by_default_they_are_refused() {
    let homeserver = Homeserver::start().await;
    let scanner = scanner(&homeserver, "").await;
    for (id, bytes, what) in [("zip", ZIP, "zip"), ("docx", DOCUMENT, "OLE EncryptedPackage")] {
        let media = homeserver.has_bytes(id, bytes);
        let info = format!("File not clean. Output: 'encrypted contents ({what})'");
        scanner.client.get(&format!("/scan/{media}")).await.is_not_clean(&info);
        let download = scanner.client.get(&format!("/download/{media}")).await;
        download.is_error(403, "MCS_MEDIA_NOT_CLEAN");
        assert_eq!(download.json()["info"], info);
    }
    assert_eq!(scanner.place.marks("runs"), 2, "the verdicts are remembered");
    let media = homeserver.has_bytes("plain", PLAIN);
    scanner.client.get(&format!("/download/{media}")).await.is_media(PLAIN);
}

#[tokio::test]
async fn by_fail_the_answer_is_a_final_error_on_every_route() {
    let homeserver = Homeserver::start().await;
    let scanner =
        scanner(&homeserver, "scan.on_encrypted = \"fail\"\nresult_cache.failure_ttl = \"1h\"")
            .await;
    let media = homeserver.has_bytes("zip", ZIP);
    for route in ["scan", "download", "thumbnail"] {
        let query = if route == "thumbnail" { "?width=1" } else { "" };
        let reply = scanner.client.get(&format!("/{route}/{media}{query}")).await;
        reply.is_error(422, "M_UNKNOWN");
        let info = "The contents need a password and could not be examined";
        assert_eq!(reply.json()["info"], info);
    }
    let attachment = Attachment::encrypt(ZIP, 1);
    let sealed = homeserver.has_bytes("sealed", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{sealed}"));
    for route in ["/scan_encrypted", "/download_encrypted"] {
        scanner.client.post(route, &body).await.is_error(422, "M_UNKNOWN");
    }
    assert_eq!(scanner.place.marks("runs"), 1, "failures are remembered by content");
}

#[tokio::test]
async fn by_pass_the_engines_decide() {
    let homeserver = Homeserver::start().await;
    let scanner = scanner(&homeserver, "scan.on_encrypted = \"pass\"").await;
    let media = homeserver.has_bytes("zip", ZIP);
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    scanner.client.get(&format!("/download/{media}")).await.is_media(ZIP);
    let media = homeserver.has_bytes("failing", with(ZIP, b"fail here"));
    scanner.client.get(&format!("/scan/{media}")).await.is_error(500, "M_UNKNOWN");
}

#[tokio::test]
async fn an_infection_outweighs_them_and_they_outweigh_a_failure() {
    let homeserver = Homeserver::start().await;
    let refused = "File not clean. Output: 'encrypted contents (zip)'";
    for setting in ["refuse", "fail", "pass"] {
        let config = format!("scan.on_encrypted = {setting:?}");
        let scanner = scanner(&homeserver, &config).await;
        let media = homeserver.has_bytes("infected", with(ZIP, &eicar()));
        let found = "File not clean. Output: 'Eicar'";
        scanner.client.get(&format!("/scan/{media}")).await.is_not_clean(found);
        let media = homeserver.has_bytes("failing", with(ZIP, b"fail here"));
        let reply = scanner.client.get(&format!("/scan/{media}")).await;
        match setting {
            "refuse" => reply.is_not_clean(refused),
            "fail" => reply.is_error(422, "M_UNKNOWN"),
            _ => reply.is_error(500, "M_UNKNOWN"),
        }
    }
}

//! An encrypted media whose counter would wrap its low 64 bits decrypts to two plaintexts, one in
//! clients with a 64-bit counter and one in clients with a 128-bit counter. It is refused.

use std::{io::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Attachment, Builder, Homeserver, Media, Scanner, attachment::seal, client::send, eicar,
    homeserver::Gate, png,
};

const REFUSED: (u16, &str) = (400, "MCS_MEDIA_FAILED_TO_DECRYPT");

/// Refuses the EICAR test file, and notes each run.
const SCRIPT: &str = r#"
echo run >> "$MARKS/runs"
if grep -q 'EICAR-STANDARD-ANTIVIRUS' "$1"; then echo "Eicar-Test-Signature"; exit 1; fi
"#;

const FOUND: &str = "File not clean. Output: 'Eicar-Test-Signature'";

/// Posts to both routes, in the clear and sealed, and expects the refusal.
async fn is_refused(scanner: &Scanner, body: &Value) {
    let sealed = seal(&scanner.client.public_key().await, body.to_string().as_bytes());
    for route in ["/scan_encrypted", "/download_encrypted"] {
        for body in [body, &sealed] {
            scanner.client.post(route, body).await.is_error(REFUSED.0, REFUSED.1);
        }
    }
}

/// The value of a metric of the operator's listener.
async fn metric(scanner: &Scanner, name: &str) -> u64 {
    let operations = scanner.operations().await;
    let page = send(operations.elsewhere(Method::GET, "/metrics")).await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    line.trim().parse().unwrap()
}

/// Asserts that nothing was scanned, kept or left.
async fn left_nothing(scanner: &Scanner) {
    assert_eq!(scanner.place.marks("runs"), 0, "something was scanned");
    for kind in ["media", "verdict", "body"] {
        let name = format!("mcs_cache_entries{{kind=\"{kind}\"}}");
        assert_eq!(metric(scanner, &name).await, 0, "{kind}");
    }
    scanner.idle().await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzipped(bytes: &[u8]) -> Media {
    Media::new("image/png", gzip(bytes)).with("content-encoding", "gzip")
}

/// The bytes without a Content-Length: chunked.
fn chunked(bytes: &[u8]) -> Media {
    Media::new("image/png", "").dripping(bytes.to_vec(), 1, Duration::ZERO)
}

fn mxc(media: &str) -> String {
    format!("mxc://{media}")
}

#[tokio::test]
async fn the_reported_file_is_refused() {
    let case: Value = serde_json::from_str(include_str!("cases/iv-wrap-eicar.json")).unwrap();
    let ciphertext = STANDARD.decode(case["body"].as_str().unwrap()).unwrap();
    let body = json!({ "file": case["file"] });
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, SCRIPT).await;

    for media in
        [Media::new("image/png", ciphertext.clone()), chunked(&ciphertext), gzipped(&ciphertext)]
    {
        homeserver.has("wrap0", media);
        is_refused(&scanner, &body).await;
    }
    left_nothing(&scanner).await;
}

#[tokio::test]
async fn a_wrapping_counter_is_refused_by_content_length_before_the_body() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, SCRIPT).await;
    let attachment = Attachment::encrypt_before_wrap(&eicar(), 1, 4);
    // The rest of the body never comes: a scanner that waits for it times out.
    let stalled = Media::new("image/png", "").stalled(attachment.ciphertext[..16].to_vec());
    let length = attachment.ciphertext.len().to_string();
    let media = homeserver.has("stalled", stalled.with("content-length", &length));

    is_refused(&scanner, &attachment.body(&mxc(&media))).await;
    assert_eq!(metric(&scanner, "mcs_fetched_bytes_total").await, 0);
    left_nothing(&scanner).await;
}

#[tokio::test]
async fn a_wrapping_counter_is_refused_by_the_bytes_that_come() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, SCRIPT).await;
    // Zipped, the ciphertext is smaller than the part before the wrap.
    let small_zipped = Attachment::from_ciphertext(&[0; 4096], 2, 255);
    assert!(gzip(&small_zipped.ciphertext).len() < 255 * 16);
    let attachment = Attachment::encrypt_before_wrap(&eicar(), 3, 4);

    for (attachment, media) in [
        (&small_zipped, gzipped(&small_zipped.ciphertext)),
        (&small_zipped, chunked(&small_zipped.ciphertext)),
        (&attachment, chunked(&attachment.ciphertext)),
        (&attachment, gzipped(&attachment.ciphertext)),
    ] {
        let media = homeserver.has("counted", media);
        is_refused(&scanner, &attachment.body(&mxc(&media))).await;
    }
    left_nothing(&scanner).await;
}

#[tokio::test]
async fn a_counter_that_just_does_not_wrap_is_scanned() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, SCRIPT).await;
    // Each seed is one more content, so that each is scanned.
    for (seed, plaintext, blocks) in
        [(1, b"".to_vec(), 1), (2, vec![2; 16], 1), (3, vec![3; 17], 2), (4, vec![4; 32], 2)]
    {
        let attachment = Attachment::encrypt_before_wrap(&plaintext, seed, blocks);
        let media = homeserver.has_bytes("last", attachment.ciphertext.clone());
        let body = attachment.body(&mxc(&media));
        scanner.client.post("/scan_encrypted", &body).await.is_clean();
        let reply = scanner.client.post("/download_encrypted", &body).await;
        reply.is_media(&attachment.ciphertext);
    }
    // 16 bytes in gzip are more than 16 bytes: the decoded size counts.
    let attachment = Attachment::encrypt_before_wrap(&[5; 16], 5, 1);
    let media = homeserver.has("zipped", gzipped(&attachment.ciphertext));
    scanner.client.post("/scan_encrypted", &attachment.body(&mxc(&media))).await.is_clean();

    // The EICAR file has five blocks.
    for (seed, blocks) in [(6, 5), (7, 1 << 40), (8, u64::MAX / 3), (9, 1 << 63)] {
        let attachment = Attachment::encrypt_before_wrap(&eicar(), seed, blocks);
        for media in [
            Media::new("image/png", attachment.ciphertext.clone()),
            chunked(&attachment.ciphertext),
            gzipped(&attachment.ciphertext),
        ] {
            let media = homeserver.has(&format!("eicar{seed}"), media);
            let body = attachment.body(&mxc(&media));
            scanner.client.post("/scan_encrypted", &body).await.is_not_clean(FOUND);
        }
    }
    scanner.idle().await;
}

#[tokio::test]
async fn a_refusal_is_not_remembered_and_changes_nothing_for_a_good_iv() {
    let homeserver = Homeserver::start().await;
    for memory in [0, 1_000_000] {
        let scanner = Builder::new(SCRIPT)
            .homeserver(&homeserver)
            .config(&format!("result_cache.max_file_size = {memory}"))
            .start()
            .await;
        let good = Attachment::encrypt(&png(), 1);
        // The same ciphertext, and so the same hash.
        let bad = Attachment::from_ciphertext(&good.ciphertext, 1, 1);
        let media = homeserver.has_bytes("same", good.ciphertext.clone());
        let (good_body, bad_body) = (good.body(&mxc(&media)), bad.body(&mxc(&media)));

        let before = homeserver.downloads();
        is_refused(&scanner, &bad_body).await;
        assert_eq!(homeserver.downloads() - before, 4, "a refusal was remembered");
        left_nothing(&scanner).await;

        scanner.client.post("/scan_encrypted", &good_body).await.is_clean();
        let reply = scanner.client.post("/download_encrypted", &good_body).await;
        reply.is_media(&good.ciphertext);
        // Its verdict is known now, and its body may be in memory.
        is_refused(&scanner, &bad_body).await;
        let reply = scanner.client.post("/download_encrypted", &good_body).await;
        reply.is_media(&good.ciphertext);
        assert_eq!(scanner.place.marks("runs"), 1);
        scanner.idle().await;
    }
}

#[tokio::test]
async fn a_refusal_is_given_only_to_those_who_may_have_the_media() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, SCRIPT).await;
    let gate = Gate::default();
    let attachment = Attachment::encrypt_before_wrap(&eicar(), 1, 4);
    let media = Media::new("image/png", attachment.ciphertext.clone()).behind(&gate);
    let media = homeserver.has("gated", media);
    let body = attachment.body(&mxc(&media));

    let first = scanner.client.post("/scan_encrypted", &body);
    let stranger = async {
        homeserver.was_asked(1).await;
        let request = scanner.client.request(Method::POST, "/scan_encrypted");
        let request = send(request.bearer_auth("bad-token").body(body.to_string()));
        let joined = async {
            scanner.logged("waits with others for the same media", 1).await;
            gate.open();
        };
        tokio::join!(request, joined).0
    };
    let (first, stranger) = tokio::join!(first, stranger);
    first.is_error(REFUSED.0, REFUSED.1);
    stranger.is_error(401, "M_UNKNOWN_TOKEN");
    left_nothing(&scanner).await;
}

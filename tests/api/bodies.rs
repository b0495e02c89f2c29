//! Request bodies: encoding, validation, and equality for the cache. Contract, "Routes".

use reqwest::Method;
use serde_json::json;

use crate::{
    harness::{
        Attachment, MockHomeserver, RawClient, ScannerProcess,
        client::{PREFIX, send},
        homeserver::TOKEN,
        png,
    },
    wire::CLEAN,
};

#[tokio::test]
async fn accepts_chunked_bodies_and_expect_100_continue() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let attachment = Attachment::encrypt(&png(), 1);
    let media = homeserver.add_bytes("one", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{media}")).to_string();
    let begin_post = async |head: &str| {
        let mut client = RawClient::connect(&scanner.address).await;
        let head = format!(
            "POST {PREFIX}/scan_encrypted HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {TOKEN}\r\n{head}\r\n\r\n"
        );
        client.write(head.as_bytes()).await;
        client
    };
    let read_rest =
        async |mut client: RawClient| String::from_utf8(client.read_to_end().await).unwrap();
    let (first, second) = body.split_at(7);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());

    let mut client = begin_post("transfer-encoding: chunked").await;
    client.write((chunk(first) + &chunk(second) + &chunk("")).as_bytes()).await;
    assert!(read_rest(client).await.contains("\"clean\":true"));

    let head = format!("expect: 100-continue\r\ncontent-length: {}", body.len());
    let mut client = begin_post(&head).await;
    assert_eq!(client.read(25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write(body.as_bytes()).await;
    assert!(read_rest(client).await.contains("\"clean\":true"));

    // A body that is too large is rejected without `100 Continue`.
    let client = begin_post("expect: 100-continue\r\ncontent-length: 131073").await;
    let mut rejections = vec![("413", read_rest(client).await)];
    let mut client = begin_post("transfer-encoding: chunked").await;
    client.write(chunk(&" ".repeat(131_073)).as_bytes()).await;
    client.write(chunk("").as_bytes()).await;
    rejections.push(("413", read_rest(client).await));
    let mut client = begin_post("transfer-encoding: chunked").await;
    client.write(b"zz\r\n{}\r\n").await;
    rejections.push(("400", read_rest(client).await));
    for (status, response) in rejections {
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
        assert!(response.contains("MCS_MALFORMED_JSON"), "{response}");
        assert!(response.contains("access-control-allow-origin: *"), "{response}");
    }
    assert_eq!(homeserver.download_count(), 1);
}

#[tokio::test]
async fn rejects_invalid_bodies_with_documented_errors() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let attachment = Attachment::encrypt(&png(), 1);
    let media = homeserver.add_bytes("one", attachment.ciphertext.clone());
    let valid = attachment.file(&format!("mxc://{media}"));
    let with = |path: &str, value: serde_json::Value| {
        let mut file = valid.clone();
        *file.pointer_mut(path).unwrap() = value;
        json!({ "file": file }).to_string().into_bytes()
    };
    let without = |parent: &str, field: &str| {
        let mut file = valid.clone();
        file.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field);
        json!({ "file": file }).to_string().into_bytes()
    };
    let malformed: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        b"\"x\"".to_vec(),
        b"{}".to_vec(),
        b"\xff{}".to_vec(),
        br#"{"file":[]}"#.to_vec(),
        br#"{"file":null}"#.to_vec(),
        json!({ "file": [valid.clone()] }).to_string().into_bytes(),
        [b"[".repeat(10_000), b"]".repeat(10_000)].concat(),
        with("/v", json!("v1")),
        with("/v", json!(2)),
        with("/key/kty", json!("RSA")),
        with("/key/alg", json!("A128CTR")),
        with("/key/ext", json!(false)),
        with("/key/ext", json!("true")),
        with("/key/key_ops", json!(["encrypt"])),
        with("/key/key_ops", json!("encrypt")),
        with("/key/k", json!(1)),
        with("/iv", json!(null)),
        with("/hashes", json!([])),
        with("/url", json!("https://x/y")),
        with("/url", json!("mxc://a/../b")),
        with("/url", json!("mxc://a/b/c")),
        with("/url", json!("mxc:///b")),
        with("/url", json!("mxc://a@b/c")),
        with("/url", json!(7)),
        without("", "v"),
        without("", "key"),
        without("", "iv"),
        without("", "hashes"),
        without("", "url"),
        without("/key", "k"),
        without("/key", "kty"),
        without("/key", "alg"),
        without("/key", "ext"),
        without("/key", "key_ops"),
        without("/hashes", "sha256"),
        br#"{"encrypted_body":[]}"#.to_vec(),
        br#"{"encrypted_body":"x"}"#.to_vec(),
        crate::harness::attachment::seal(&scanner.client.public_key().await, b"[]")
            .to_string()
            .into_bytes(),
        crate::harness::attachment::seal(&scanner.client.public_key().await, b"no json")
            .to_string()
            .into_bytes(),
    ];
    let undecodable = vec![
        with("/key/k", json!("not base64!")),
        with("/key/k", json!("AAAA")),
        with("/iv", json!("AAAA")),
        with("/iv", json!("*")),
        with("/hashes/sha256", json!("AAAA")),
        with("/hashes/sha256", json!("")),
    ];
    let other = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo";
    let sealed = crate::harness::attachment::seal(&scanner.client.public_key().await, b"{}");
    let mut broken = vec![
        crate::harness::attachment::seal(other, b"{}").to_string().into_bytes(),
        crate::harness::attachment::seal(&scanner.client.public_key().await, b"\xff\xfe")
            .to_string()
            .into_bytes(),
        br#"{"encrypted_body":{}}"#.to_vec(),
    ];
    for field in ["ciphertext", "mac", "ephemeral"] {
        for value in [json!(null), json!(1), json!("!"), json!("AAAA")] {
            let mut body = sealed.clone();
            body["encrypted_body"][field] = value;
            broken.push(body.to_string().into_bytes());
        }
    }
    for (bodies, status, reason) in [
        (malformed, 400, "MCS_MALFORMED_JSON"),
        (undecodable, 400, "MCS_MEDIA_FAILED_TO_DECRYPT"),
        (broken, 403, "MCS_BAD_DECRYPTION"),
    ] {
        for body in bodies {
            let excerpt = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
            let response = scanner.client.post_bytes("/scan_encrypted", body).await;
            assert_eq!(response.json()["reason"], reason, "{excerpt}");
            response.assert_error(status, reason);
        }
    }
    assert!(homeserver.requests().is_empty(), "media was requested for an invalid body");
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn equivalent_bodies_share_one_cache_entry() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let attachment = Attachment::encrypt(&png(), 1);
    let media = homeserver.add_bytes("one", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{media}"));
    let mut padded = body.clone();
    for path in ["/file/iv", "/file/hashes/sha256", "/file/key/k"] {
        let value = padded.pointer_mut(path).unwrap();
        let text = value.as_str().unwrap().replace('-', "+").replace('_', "/");
        *value = json!(format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4)));
    }
    let mut with_extra_fields = padded.clone();
    with_extra_fields["file"]["mimetype"] = json!("text/html");
    with_extra_fields["file"]["key"]["extra"] = json!([1]);
    with_extra_fields["extra"] = json!({});
    with_extra_fields["encrypted_body"] = json!(null);
    let key = scanner.client.public_key().await;
    let sealed = crate::harness::attachment::seal(&key, with_extra_fields.to_string().as_bytes());
    let mut both = sealed.clone();
    both["file"] = json!("ignored");

    for body in [&body, &padded, &with_extra_fields, &sealed, &both] {
        scanner.client.post("/scan_encrypted", body).await.assert_clean();
    }
    for content_type in ["text/plain", "application/json", "application/x-www-form-urlencoded"] {
        let request = scanner.client.request(Method::POST, "/scan_encrypted").bearer_auth(TOKEN);
        send(request.header("content-type", content_type).body(body.to_string()))
            .await
            .assert_clean();
    }
    assert_eq!(homeserver.download_count(), 1);
}

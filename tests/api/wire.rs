//! What goes over the wire: routes, methods, headers, ranges. Contract, "Routes" and "Headers".

use std::fmt::Write;

use reqwest::{Method, header};
use serde_json::json;
use sha2::Digest;

use crate::harness::{
    Attachment, Builder, Caller, Homeserver, Media, Reply, Scanner,
    client::{PREFIX, send},
    homeserver::TOKEN,
    noise, png,
};

const CLEAN: &str = "exit 0";

const CORS: [(&str, &str); 5] = [
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "GET, HEAD, POST, OPTIONS"),
    (
        "access-control-allow-headers",
        "Origin, X-Requested-With, Content-Type, Accept, Authorization, Range",
    ),
    ("access-control-expose-headers", "Content-Disposition, Content-Range, ETag, Retry-After"),
    ("access-control-max-age", "86400"),
];

#[track_caller]
fn has_cors(reply: &Reply) {
    for (name, value) in CORS {
        assert_eq!(reply.header(name), value);
    }
}

#[tokio::test]
async fn every_route_answers_its_methods_and_all_carry_cors() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let media = homeserver.has_bytes("one", png());
    let gets = [
        format!("/download/{media}"),
        format!("/download/{media}/name.png"),
        format!("/thumbnail/{media}"),
        format!("/scan/{media}"),
        "/public_key".to_owned(),
    ];
    for path in &gets {
        for path in [path.clone(), format!("{path}/"), format!("{path}?allow_redirect=true&x")] {
            let got = scanner.client.get(&path).await;
            assert_eq!(got.status, 200, "{path}");
            has_cors(&got);
            let head = scanner.client.request(Method::HEAD, &path).bearer_auth(TOKEN);
            let head = send(head).await;
            assert_eq!((head.status, head.body.len()), (got.status, 0), "{path}");
            assert_eq!(head.header("content-length"), got.body.len().to_string());
            assert_eq!(head.headers.get("etag"), got.headers.get("etag"));
        }
    }
    for path in gets.iter().map(String::as_str).chain(["/download_encrypted", "/scan_encrypted"]) {
        let allowed =
            if path.ends_with("_encrypted") { "POST,OPTIONS" } else { "GET,HEAD,OPTIONS" };
        let options = send(scanner.client.request(Method::OPTIONS, path)).await;
        assert_eq!(options.status, 200, "{path}");
        has_cors(&options);
        for method in [Method::PUT, Method::DELETE, Method::PATCH] {
            let reply = send(scanner.client.request(method, path)).await;
            assert_eq!(reply.status, 405);
            assert_eq!(reply.header("allow"), allowed);
            let body = json!({ "errcode": "M_UNRECOGNIZED", "error": "Unrecognized request" });
            assert_eq!(reply.json(), body);
            has_cors(&reply);
        }
    }
    for path in ["/download/server", "/download", "/scan/server", "/nothing", "", "/public_key/x"] {
        let reply = scanner.client.get(path).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["errcode"]),
            (404, &json!("M_UNRECOGNIZED"))
        );
        has_cors(&reply);
    }
    let elsewhere = send(scanner.client.elsewhere(Method::GET, "/_matrix/client/versions")).await;
    assert_eq!(elsewhere.status, 404);
    let too_large = scanner.client.post_bytes("/scan_encrypted", vec![b' '; 200 << 10]).await;
    too_large.is_error(413, "MCS_MALFORMED_JSON");
    has_cors(&too_large);
    scanner.idle().await;
}

#[tokio::test]
async fn only_what_the_homeserver_needs_is_passed_on() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, r#"echo run >> "$MARKS/runs""#).await;
    let media = homeserver.has_bytes("one", png());
    let query = "width=32&height=24&method=crop&animated=true&timeout_ms=5&width=9\
                 &access_token=x&admin_unsafely_bypass_quarantine=true&allow_redirect=true";
    scanner.client.get(&format!("/thumbnail/{media}?{query}")).await.is_media(&png());
    scanner.client.get(&format!("/download/{media}?{query}")).await.is_media(&png());
    // Another time to wait is the same media; another width is not.
    let again = query.replace("timeout_ms=5", "timeout_ms=6");
    scanner.client.get(&format!("/thumbnail/{media}?{again}")).await.is_media(&png());
    let wider = query.replace("width=32", "width=33");
    scanner.client.get(&format!("/thumbnail/{media}?{wider}")).await.is_media(&png());

    let uris: Vec<_> = homeserver.asked().into_iter().map(|asked| asked.uri).collect();
    let base = "/_matrix/client/v1/media";
    assert_eq!(
        uris,
        [
            format!(
                "{base}/thumbnail/{media}?width=32&height=24&method=crop&animated=true&timeout_ms=5"
            ),
            format!("{base}/download/{media}?timeout_ms=5"),
            format!(
                "{base}/thumbnail/{media}?width=33&height=24&method=crop&animated=true&timeout_ms=5"
            ),
        ]
    );
    for asked in homeserver.asked() {
        assert_eq!(asked.headers["accept-encoding"], "identity");
    }
    assert_eq!(scanner.place.marks("runs"), 1);
}

#[tokio::test]
async fn the_host_goes_along_where_the_operator_says_so() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new(CLEAN).homeserver(&homeserver);
    let scanner = builder.config("download.headers_to_forward = [\"Host\"]").start().await;
    let media = homeserver.has_bytes("one", png());
    let path = format!("/download/{media}");
    for host in ["Media.example", "other.example:8443"] {
        let request = scanner.client.request(Method::GET, &path).header("host", host);
        send(request.bearer_auth(TOKEN)).await.is_media(&png());
    }
    let hosts: Vec<_> = homeserver
        .asked()
        .iter()
        .map(|asked| asked.headers["host"].to_str().unwrap().to_owned())
        .collect();
    // One base URL may serve several homeservers: each Host has its own media.
    assert_eq!(hosts, ["media.example", "other.example:8443"]);
}

#[tokio::test]
async fn a_path_that_lacks_a_segment_is_no_route() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    for path in [
        "/download//abc",
        "/download/hs.example//",
        "/scan//abc",
        "/thumbnail//abc",
        "/download/a//b",
    ] {
        let reply = scanner.client.get(path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.json()["errcode"], "M_UNRECOGNIZED", "{path}");
    }
    assert_eq!(homeserver.downloads(), 0);
}

#[tokio::test]
async fn media_comes_with_headers_of_our_own_making() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let disposition = r#"inline; filename="a cat.png""#;
    let media = Media::new("image/png", png()).with("content-disposition", disposition);
    let media = homeserver.has("one", media.with("x-powered-by", "upstream"));

    let reply = scanner.client.get(&format!("/download/{media}")).await;

    has_cors(&reply);
    let mut hash = String::new();
    for byte in sha2::Sha256::digest(png()) {
        write!(hash, "{byte:02x}").unwrap();
    }
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-length", &*png().len().to_string()),
        ("content-disposition", disposition),
        ("x-content-type-options", "nosniff"),
        (
            "content-security-policy",
            "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
             style-src 'unsafe-inline'; media-src 'self'; object-src 'self';",
        ),
        ("cross-origin-resource-policy", "cross-origin"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "private, max-age=86400"),
        ("etag", &format!("\"{hash}\"")),
    ] {
        assert_eq!(reply.header(name), value);
    }
    for name in ["server", "set-cookie", "x-powered-by", "transfer-encoding"] {
        assert!(!reply.headers.contains_key(name), "{name}");
    }
    let verdict = scanner.client.get(&format!("/scan/{media}")).await;
    assert_eq!(verdict.header("cache-control"), "no-store");
}

#[tokio::test]
async fn what_a_homeserver_says_of_type_and_name_is_checked() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let png = || Media::new("image/png", png());
    let cases: [(Media, &str, &str); 7] = [
        (png().without("content-type"), "application/octet-stream", "attachment"),
        (png().with_another("content-type", "text/html"), "application/octet-stream", "attachment"),
        (png().with("content-type", "no type"), "application/octet-stream", "attachment"),
        (
            png()
                .with("content-type", "text/html; charset=UTF-8")
                .with("content-disposition", "inline"),
            "text/html; charset=UTF-8",
            "attachment",
        ),
        (
            png().with("content-disposition", "attachment; filename*=utf-8''%C3%A4.png"),
            "image/png",
            "attachment; filename*=utf-8''%C3%A4.png",
        ),
        (png().with("content-disposition", "inline"), "image/png", "inline"),
        (
            png()
                .with("content-type", "image/svg+xml")
                .with("content-disposition", "inline; filename=\"x.svg\""),
            "image/svg+xml",
            "attachment; filename=\"x.svg\"",
        ),
    ];
    for (n, (media, content_type, disposition)) in cases.into_iter().enumerate() {
        let media = homeserver.has(&format!("case{n}"), media);
        let reply = scanner.client.get(&format!("/download/{media}")).await;
        assert_eq!(reply.header("content-type"), content_type, "case {n}");
        assert_eq!(reply.header("content-disposition"), disposition, "case {n}");
    }
    let media = homeserver.has("named", png());
    let reply = scanner.client.get(&format!("/download/{media}/my%20%22%C3%A4%22.png")).await;
    let disposition = reply.headers["content-disposition"].to_str().unwrap();
    assert!(disposition.contains("filename*=UTF-8''my%20%22%C3%A4%22.png"), "{disposition}");
}

#[tokio::test]
async fn conditions_and_ranges_count_after_the_verdict() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, r#"! grep -q dirty "$1""#).await;
    for (id, length) in [("small", 5_000), ("large", 3_000_000)] {
        let bytes = noise(1, length);
        let path = format!("/download/{}", homeserver.has_bytes(id, bytes.clone()));
        let ask = |name: header::HeaderName, value: String| {
            send(scanner.client.request(Method::GET, &path).bearer_auth(TOKEN).header(name, value))
        };
        let etag = scanner.client.get(&path).await.header("etag").to_owned();

        for value in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
            let reply = ask(header::IF_NONE_MATCH, value).await;
            assert_eq!((reply.status.as_u16(), reply.body.len()), (304, 0));
            assert_eq!(reply.header("etag"), etag);
        }
        ask(header::IF_NONE_MATCH, "\"x\"".to_owned()).await.is_media(&bytes);

        let last = length - 1;
        for (range, from, to) in [
            ("bytes=0-99".to_owned(), 0, 99),
            (format!("bytes={last}-"), last, last),
            ("bytes=-300".to_owned(), length - 300, last),
            (format!("bytes=1000-{}", length * 2), 1000, last),
        ] {
            let reply = ask(header::RANGE, range.clone()).await;
            assert_eq!(reply.status, 206, "{range}");
            assert_eq!(reply.header("content-range"), format!("bytes {from}-{to}/{length}"));
            assert!(reply.body == bytes[from..=to], "{range}");
        }
        for range in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
            let reply = ask(header::RANGE, range).await;
            reply.is_error(416, "M_UNKNOWN");
            assert_eq!(reply.header("content-range"), format!("bytes */{length}"));
        }
        for range in ["bytes=0-1,5-6", "bytes=5-1", "lines=1-2", "bytes=a-b"] {
            ask(header::RANGE, range.to_owned()).await.is_media(&bytes);
        }
    }
    // A client's condition never goes upstream, and a verdict comes before it.
    assert_eq!(homeserver.asked().iter().filter(|it| it.headers.contains_key("range")).count(), 0);
    let dirty = homeserver.has_bytes("dirty", "dirty");
    let request = scanner.client.request(Method::GET, &format!("/download/{dirty}"));
    let reply = send(request.bearer_auth(TOKEN).header(header::IF_NONE_MATCH, "*")).await;
    reply.is_error(403, "MCS_MEDIA_NOT_CLEAN");
}

#[tokio::test]
async fn conditions_and_ranges_count_on_every_media_route_and_never_before_permission() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new(CLEAN).homeserver(&homeserver);
    let scanner = builder.config("download.authorisation_ttl = 0").start().await;
    let media = homeserver.has_bytes("one", png());
    let every = [Method::GET, Method::HEAD];
    let ask = |method: &Method, path: &str, token: &str, name: &str, value: &str| {
        let request = scanner.client.request(method.clone(), path).bearer_auth(token);
        send(request.header(name, value))
    };
    for path in [
        format!("/download/{media}"),
        format!("/download/{media}/n"),
        format!("/thumbnail/{media}"),
    ] {
        let etag = scanner.client.get(&path).await.header("etag").to_owned();
        for method in &every {
            let known = ask(method, &path, TOKEN, "if-none-match", &etag).await;
            assert_eq!((known.status.as_u16(), known.body.len()), (304, 0), "{method} {path}");
            assert_eq!(known.header("etag"), etag);
            assert_eq!(known.header("cache-control"), "private, max-age=86400");
            // None, or that of the media.
            let length = known.headers.get("content-length");
            assert!(length.is_none_or(|length| *length == png().len().to_string()), "{method}");
            has_cors(&known);
            let partly = ask(method, &path, TOKEN, "range", "bytes=0-0").await;
            // A range means something in a GET alone.
            let status = if *method == Method::GET { 206 } else { 200 };
            assert_eq!(partly.status, status, "{method} {path}");
            for (name, value) in
                [("if-none-match", "*"), ("range", "bytes=0-0"), ("range", "bytes=9999-")]
            {
                let refused = ask(method, &path, "nobodys", name, value).await;
                assert_eq!(refused.status, 401, "{method} {path} {name}");
                assert!(!refused.headers.contains_key("etag"));
                assert!(!refused.headers.contains_key("content-range"));
            }
        }
    }
    // What is no media has no tag and no parts.
    for path in [&*format!("/scan/{media}"), "/public_key"] {
        for (name, value) in [("if-none-match", "*"), ("range", "bytes=0-0")] {
            assert_eq!(ask(&Method::GET, path, TOKEN, name, value).await.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn another_spelling_of_a_name_is_the_same_media() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    homeserver.has_bytes("a-Z_9", png());
    for path in ["hs.example/a-Z_9", "hs%2Eexample/%61%2DZ%5f9", "%68s.example/a-Z_9/"] {
        scanner.client.get(&format!("/download/{path}")).await.is_media(&png());
    }
    assert_eq!(homeserver.downloads(), 1);
    // Decoded once, and not read as a form.
    for path in
        ["hs.example/%2561-Z_9", "hs.example/a-Z_9%3Fx", "hs.example/a-Z_9+", "hs.example/%"]
    {
        let reply = scanner.client.get(&format!("/download/{path}")).await;
        reply.is_error(404, "M_NOT_FOUND");
    }
    assert_eq!(homeserver.asked().len(), 1);
}

#[tokio::test]
async fn a_body_may_come_in_chunks_and_after_it_was_asked_for() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let attachment = Attachment::encrypt(&png(), 1);
    let media = homeserver.has_bytes("one", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{media}")).to_string();
    let post = async |head: &str| {
        let mut caller = Caller::connect(&scanner.address).await;
        let head = format!(
            "POST {PREFIX}/scan_encrypted HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {TOKEN}\r\n{head}\r\n\r\n"
        );
        caller.write(head.as_bytes()).await;
        caller
    };
    let rest = async |mut caller: Caller| String::from_utf8(caller.read_to_end().await).unwrap();
    let (first, second) = body.split_at(7);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());

    let mut caller = post("transfer-encoding: chunked").await;
    caller.write((chunk(first) + &chunk(second) + &chunk("")).as_bytes()).await;
    assert!(rest(caller).await.contains("\"clean\":true"));

    let mut caller = post(&format!("expect: 100-continue\r\ncontent-length: {}", body.len())).await;
    assert_eq!(caller.read(25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
    caller.write(body.as_bytes()).await;
    assert!(rest(caller).await.contains("\"clean\":true"));

    // What is too large is not even asked for.
    let caller = post("expect: 100-continue\r\ncontent-length: 131073").await;
    let mut refused = vec![("413", rest(caller).await)];
    let mut caller = post("transfer-encoding: chunked").await;
    caller.write(chunk(&" ".repeat(131_073)).as_bytes()).await;
    caller.write(chunk("").as_bytes()).await;
    refused.push(("413", rest(caller).await));
    let mut caller = post("transfer-encoding: chunked").await;
    caller.write(b"zz\r\n{}\r\n").await;
    refused.push(("400", rest(caller).await));
    for (status, answer) in refused {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("MCS_MALFORMED_JSON"), "{answer}");
        assert!(answer.contains("access-control-allow-origin: *"), "{answer}");
    }
    assert_eq!(homeserver.downloads(), 1);
}

/// Bodies that are refused, and how; `{good}` stands for a good `EncryptedFile`.
#[tokio::test]
async fn bodies_are_judged_by_the_contracts_table() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let attachment = Attachment::encrypt(&png(), 1);
    let media = homeserver.has_bytes("one", attachment.ciphertext.clone());
    let good = attachment.file(&format!("mxc://{media}"));
    let with = |path: &str, value: serde_json::Value| {
        let mut file = good.clone();
        *file.pointer_mut(path).unwrap() = value;
        json!({ "file": file }).to_string().into_bytes()
    };
    let without = |parent: &str, field: &str| {
        let mut file = good.clone();
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
        json!({ "file": [good.clone()] }).to_string().into_bytes(),
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
            let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
            let reply = scanner.client.post_bytes("/scan_encrypted", body).await;
            assert_eq!(reply.json()["reason"], reason, "{shown}");
            reply.is_error(status, reason);
        }
    }
    assert!(homeserver.asked().is_empty(), "said before any download");
    scanner.idle().await;
}

#[tokio::test]
async fn one_media_however_its_body_is_written_is_one_entry() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let attachment = Attachment::encrypt(&png(), 1);
    let media = homeserver.has_bytes("one", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{media}"));
    let mut padded = body.clone();
    for path in ["/file/iv", "/file/hashes/sha256", "/file/key/k"] {
        let value = padded.pointer_mut(path).unwrap();
        let text = value.as_str().unwrap().replace('-', "+").replace('_', "/");
        *value = json!(format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4)));
    }
    let mut more = padded.clone();
    more["file"]["mimetype"] = json!("text/html");
    more["file"]["key"]["extra"] = json!([1]);
    more["extra"] = json!({});
    more["encrypted_body"] = json!(null);
    let key = scanner.client.public_key().await;
    let sealed = crate::harness::attachment::seal(&key, more.to_string().as_bytes());
    let mut both = sealed.clone();
    both["file"] = json!("not looked at");

    for body in [&body, &padded, &more, &sealed, &both] {
        scanner.client.post("/scan_encrypted", body).await.is_clean();
    }
    for content_type in ["text/plain", "application/json", "application/x-www-form-urlencoded"] {
        let request = scanner.client.request(Method::POST, "/scan_encrypted").bearer_auth(TOKEN);
        send(request.header("content-type", content_type).body(body.to_string())).await.is_clean();
    }
    assert_eq!(homeserver.downloads(), 1);
}

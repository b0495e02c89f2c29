//! HTTP interface: routes, methods, headers. Contract, "Routes" and "Headers".

use std::fmt::Write;

use reqwest::Method;
use serde_json::json;
use sha2::Digest;

use crate::harness::{
    MockHomeserver, MockMedia, ScannerBuilder, ScannerProcess, TestResponse, client::send,
    homeserver::TOKEN, png,
};

pub(crate) const CLEAN: &str = "exit 0";

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
pub(crate) fn assert_cors(response: &TestResponse) {
    for (name, value) in CORS {
        assert_eq!(response.header(name), value);
    }
}

#[tokio::test]
async fn routes_accept_documented_methods_and_send_cors_headers() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let media = homeserver.add_bytes("one", png());
    let gets = [
        format!("/download/{media}"),
        format!("/download/{media}/name.png"),
        format!("/thumbnail/{media}"),
        format!("/scan/{media}"),
        "/public_key".to_owned(),
    ];
    for path in &gets {
        for path in [path.clone(), format!("{path}/"), format!("{path}?allow_redirect=true&x")] {
            let get = scanner.client.get(&path).await;
            assert_eq!(get.status, 200, "{path}");
            assert_cors(&get);
            let head = scanner.client.request(Method::HEAD, &path).bearer_auth(TOKEN);
            let head = send(head).await;
            assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
            assert_eq!(head.header("content-length"), get.body.len().to_string());
            assert_eq!(head.headers.get("etag"), get.headers.get("etag"));
        }
    }
    for path in gets.iter().map(String::as_str).chain(["/download_encrypted", "/scan_encrypted"]) {
        let allowed =
            if path.ends_with("_encrypted") { "POST,OPTIONS" } else { "GET,HEAD,OPTIONS" };
        let options = send(scanner.client.request(Method::OPTIONS, path)).await;
        assert_eq!(options.status, 200, "{path}");
        assert_cors(&options);
        for method in [Method::PUT, Method::DELETE, Method::PATCH] {
            let response = send(scanner.client.request(method, path)).await;
            assert_eq!(response.status, 405);
            assert_eq!(response.header("allow"), allowed);
            let body = json!({ "errcode": "M_UNRECOGNIZED", "error": "Unrecognized request" });
            assert_eq!(response.json(), body);
            assert_cors(&response);
        }
    }
    for path in ["/download/server", "/download", "/scan/server", "/nothing", "", "/public_key/x"] {
        let response = scanner.client.get(path).await;
        assert_eq!(
            (response.status.as_u16(), &response.json()["errcode"]),
            (404, &json!("M_UNRECOGNIZED"))
        );
        assert_cors(&response);
    }
    let request = scanner.client.request_outside_prefix(Method::GET, "/_matrix/client/versions");
    assert_eq!(send(request).await.status, 404);
    let too_large = scanner.client.post_bytes("/scan_encrypted", vec![b' '; 200 << 10]).await;
    too_large.assert_error(413, "MCS_MALFORMED_JSON");
    assert_cors(&too_large);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn forwards_only_documented_query_parameters() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, r#"echo run >> "$MARKS/runs""#).await;
    let media = homeserver.add_bytes("one", png());
    let query = "width=32&height=24&method=crop&animated=true&timeout_ms=5&width=9\
                 &access_token=x&admin_unsafely_bypass_quarantine=true&allow_redirect=true";
    scanner.client.get(&format!("/thumbnail/{media}?{query}")).await.assert_media(&png());
    scanner.client.get(&format!("/download/{media}?{query}")).await.assert_media(&png());
    // `timeout_ms` does not identify the media; `width` does.
    let again = query.replace("timeout_ms=5", "timeout_ms=6");
    scanner.client.get(&format!("/thumbnail/{media}?{again}")).await.assert_media(&png());
    let wider = query.replace("width=32", "width=33");
    scanner.client.get(&format!("/thumbnail/{media}?{wider}")).await.assert_media(&png());

    let uris: Vec<_> = homeserver.requests().into_iter().map(|request| request.uri).collect();
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
    for request in homeserver.requests() {
        assert_eq!(request.headers["accept-encoding"], "identity");
    }
    assert_eq!(scanner.dir.mark_count("runs"), 1);
}

#[tokio::test]
async fn forwards_host_header_when_configured() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new(CLEAN).homeserver(&homeserver);
    let scanner = builder.config("download.headers_to_forward = [\"Host\"]").start().await;
    let media = homeserver.add_bytes("one", png());
    let path = format!("/download/{media}");
    for host in ["Media.example", "other.example:8443"] {
        let request = scanner.client.request(Method::GET, &path).header("host", host);
        send(request.bearer_auth(TOKEN)).await.assert_media(&png());
    }
    let hosts: Vec<_> = homeserver
        .requests()
        .iter()
        .map(|request| request.headers["host"].to_str().unwrap().to_owned())
        .collect();
    // One base URL may serve several homeservers, so media is cached separately for each Host.
    assert_eq!(hosts, ["media.example", "other.example:8443"]);
}

#[tokio::test]
async fn returns_404_for_path_with_empty_segment() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    for path in [
        "/download//abc",
        "/download/hs.example//",
        "/scan//abc",
        "/thumbnail//abc",
        "/download/a//b",
    ] {
        let response = scanner.client.get(path).await;
        assert_eq!(response.status, 404, "{path}");
        assert_eq!(response.json()["errcode"], "M_UNRECOGNIZED", "{path}");
    }
    assert_eq!(homeserver.download_count(), 0);
}

#[tokio::test]
async fn sends_own_headers_instead_of_homeservers() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let disposition = r#"inline; filename="a cat.png""#;
    let media = MockMedia::new("image/png", png()).with_header("content-disposition", disposition);
    let media = homeserver.add_media("one", media.with_header("x-powered-by", "upstream"));

    let response = scanner.client.get(&format!("/download/{media}")).await;

    assert_cors(&response);
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
        assert_eq!(response.header(name), value);
    }
    for name in ["server", "set-cookie", "x-powered-by", "transfer-encoding"] {
        assert!(!response.headers.contains_key(name), "{name}");
    }
    let verdict = scanner.client.get(&format!("/scan/{media}")).await;
    assert_eq!(verdict.header("cache-control"), "no-store");
}

#[tokio::test]
async fn validates_content_type_and_disposition_of_homeserver() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let png = || MockMedia::new("image/png", png());
    let cases: [(MockMedia, &str, &str); 7] = [
        (png().without_header("content-type"), "application/octet-stream", "attachment"),
        (
            png().with_extra_header("content-type", "text/html"),
            "application/octet-stream",
            "attachment",
        ),
        (png().with_header("content-type", "no type"), "application/octet-stream", "attachment"),
        (
            png()
                .with_header("content-type", "text/html; charset=UTF-8")
                .with_header("content-disposition", "inline"),
            "text/html; charset=UTF-8",
            "attachment",
        ),
        (
            png().with_header("content-disposition", "attachment; filename*=utf-8''%C3%A4.png"),
            "image/png",
            "attachment; filename*=utf-8''%C3%A4.png",
        ),
        (png().with_header("content-disposition", "inline"), "image/png", "inline"),
        (
            png()
                .with_header("content-type", "image/svg+xml")
                .with_header("content-disposition", "inline; filename=\"x.svg\""),
            "image/svg+xml",
            "attachment; filename=\"x.svg\"",
        ),
    ];
    for (n, (media, content_type, disposition)) in cases.into_iter().enumerate() {
        let media = homeserver.add_media(&format!("case{n}"), media);
        let response = scanner.client.get(&format!("/download/{media}")).await;
        assert_eq!(response.header("content-type"), content_type, "case {n}");
        assert_eq!(response.header("content-disposition"), disposition, "case {n}");
    }
    let media = homeserver.add_media("named", png());
    let response = scanner.client.get(&format!("/download/{media}/my%20%22%C3%A4%22.png")).await;
    let disposition = response.headers["content-disposition"].to_str().unwrap();
    assert!(disposition.contains("filename*=UTF-8''my%20%22%C3%A4%22.png"), "{disposition}");
}

#[tokio::test]
async fn percent_encoded_names_refer_to_same_media() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    homeserver.add_bytes("a-Z_9", png());
    for path in ["hs.example/a-Z_9", "hs%2Eexample/%61%2DZ%5f9", "%68s.example/a-Z_9/"] {
        scanner.client.get(&format!("/download/{path}")).await.assert_media(&png());
    }
    assert_eq!(homeserver.download_count(), 1);
    // The name is percent-decoded once, and `+` is not decoded to a space.
    for path in
        ["hs.example/%2561-Z_9", "hs.example/a-Z_9%3Fx", "hs.example/a-Z_9+", "hs.example/%"]
    {
        let response = scanner.client.get(&format!("/download/{path}")).await;
        response.assert_error(404, "M_NOT_FOUND");
    }
    assert_eq!(homeserver.requests().len(), 1);
}

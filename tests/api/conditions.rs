//! Conditional requests and ranges. Contract, "Headers".

use reqwest::{Method, header};

use crate::{
    harness::{
        MockHomeserver, ScannerBuilder, ScannerProcess, client::send, homeserver::TOKEN, noise, png,
    },
    wire::{CLEAN, assert_cors},
};

#[tokio::test]
async fn evaluates_conditions_and_ranges_after_verdict() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, r#"! grep -q dirty "$1""#).await;
    for (id, length) in [("small", 5_000), ("large", 3_000_000)] {
        let bytes = noise(1, length);
        let path = format!("/download/{}", homeserver.add_bytes(id, bytes.clone()));
        let get_with = |name: header::HeaderName, value: String| {
            send(scanner.client.request(Method::GET, &path).bearer_auth(TOKEN).header(name, value))
        };
        let etag = scanner.client.get(&path).await.header("etag").to_owned();

        for value in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
            let response = get_with(header::IF_NONE_MATCH, value).await;
            assert_eq!((response.status.as_u16(), response.body.len()), (304, 0));
            assert_eq!(response.header("etag"), etag);
        }
        get_with(header::IF_NONE_MATCH, "\"x\"".to_owned()).await.assert_media(&bytes);

        let last = length - 1;
        for (range, from, to) in [
            ("bytes=0-99".to_owned(), 0, 99),
            (format!("bytes={last}-"), last, last),
            ("bytes=-300".to_owned(), length - 300, last),
            (format!("bytes=1000-{}", length * 2), 1000, last),
        ] {
            let response = get_with(header::RANGE, range.clone()).await;
            assert_eq!(response.status, 206, "{range}");
            assert_eq!(response.header("content-range"), format!("bytes {from}-{to}/{length}"));
            assert!(response.body == bytes[from..=to], "{range}");
        }
        for range in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
            let response = get_with(header::RANGE, range).await;
            response.assert_error(416, "M_UNKNOWN");
            assert_eq!(response.header("content-range"), format!("bytes */{length}"));
        }
        for range in ["bytes=0-1,5-6", "bytes=5-1", "lines=1-2", "bytes=a-b"] {
            get_with(header::RANGE, range.to_owned()).await.assert_media(&bytes);
        }
    }
    // A client's range is not forwarded, and the verdict takes precedence over a condition.
    assert!(homeserver.requests().iter().all(|request| !request.headers.contains_key("range")));
    let dirty = homeserver.add_bytes("dirty", "dirty");
    let request = scanner.client.request(Method::GET, &format!("/download/{dirty}"));
    let response = send(request.bearer_auth(TOKEN).header(header::IF_NONE_MATCH, "*")).await;
    response.assert_error(403, "MCS_MEDIA_NOT_CLEAN");
}

#[tokio::test]
async fn evaluates_conditions_and_ranges_on_all_media_routes_after_authorisation() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new(CLEAN).homeserver(&homeserver);
    let scanner = builder.config("download.authorisation_ttl = 0").start().await;
    let media = homeserver.add_bytes("one", png());
    let methods = [Method::GET, Method::HEAD];
    let request_with = |method: &Method, path: &str, token: &str, name: &str, value: &str| {
        let request = scanner.client.request(method.clone(), path).bearer_auth(token);
        send(request.header(name, value))
    };
    for path in [
        format!("/download/{media}"),
        format!("/download/{media}/n"),
        format!("/thumbnail/{media}"),
    ] {
        let etag = scanner.client.get(&path).await.header("etag").to_owned();
        for method in &methods {
            let not_modified = request_with(method, &path, TOKEN, "if-none-match", &etag).await;
            assert_eq!(not_modified.status, 304, "{method} {path}");
            assert_eq!(not_modified.body.len(), 0, "{method} {path}");
            assert_eq!(not_modified.header("etag"), etag);
            assert_eq!(not_modified.header("cache-control"), "private, max-age=86400");
            // Absent, or the length of the media.
            let length = not_modified.headers.get("content-length");
            assert!(length.is_none_or(|length| *length == png().len().to_string()), "{method}");
            assert_cors(&not_modified);
            let partial = request_with(method, &path, TOKEN, "range", "bytes=0-0").await;
            // Range applies to GET only (RFC 9110, section 14.2).
            let status = if *method == Method::GET { 206 } else { 200 };
            assert_eq!(partial.status, status, "{method} {path}");
            for (name, value) in
                [("if-none-match", "*"), ("range", "bytes=0-0"), ("range", "bytes=9999-")]
            {
                let rejected = request_with(method, &path, "bad-token", name, value).await;
                assert_eq!(rejected.status, 401, "{method} {path} {name}");
                assert!(!rejected.headers.contains_key("etag"));
                assert!(!rejected.headers.contains_key("content-range"));
            }
        }
    }
    // Responses other than media have no ETag and no ranges.
    for path in [&*format!("/scan/{media}"), "/public_key"] {
        for (name, value) in [("if-none-match", "*"), ("range", "bytes=0-0")] {
            let response = request_with(&Method::GET, path, TOKEN, name, value).await;
            assert_eq!(response.status, 200, "{path}");
        }
    }
}

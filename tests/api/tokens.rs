//! Use and forwarding of access tokens: contract, section "Tokens and authorisation".

use reqwest::Method;

use crate::harness::{
    Attachment, MockHomeserver, MockMedia, ScannerBuilder, ScannerProcess,
    client::send,
    homeserver::{Gate, NAME, TOKEN},
    png, wait_until,
};

const CLEAN: &str = "exit 0";

#[tokio::test]
async fn cached_media_requires_authorisation_by_homeserver() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(CLEAN)
        .homeserver(&homeserver)
        .config("download.authorisation_ttl = 0")
        .start()
        .await;
    let media = homeserver.add_bytes("one", png());
    let attachment = Attachment::encrypt(&png(), 1);
    let encrypted = homeserver.add_bytes("two", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{encrypted}")).to_string();
    homeserver.add_token("second-token");

    let assert_all_routes = async |token: Option<&str>, status: u16, reason: &str| {
        for (method, path, body) in [
            (Method::GET, format!("/download/{media}"), String::new()),
            (Method::GET, format!("/scan/{media}"), String::new()),
            (Method::POST, "/download_encrypted".to_owned(), body.clone()),
            (Method::POST, "/scan_encrypted".to_owned(), body.clone()),
        ] {
            let mut request = scanner.client.request(method, &path).body(body);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let response = send(request).await;
            match status {
                200 => assert_eq!(response.status, 200, "{path} {token:?}"),
                status => response.assert_error(status, reason),
            }
        }
    };
    assert_all_routes(Some(TOKEN), 200, "").await;
    let downloads = homeserver.download_count();
    assert_all_routes(Some("second-token"), 200, "").await;
    assert_eq!(
        homeserver.download_count(),
        downloads,
        "expected an authorisation check without a download"
    );
    assert_all_routes(Some("bad-token"), 401, "M_UNKNOWN_TOKEN").await;
    // This homeserver returns 404 on its legacy routes, like Synapse.
    assert_all_routes(None, 404, "M_NOT_FOUND").await;
    homeserver.revoke_token("second-token");
    assert_all_routes(Some("second-token"), 401, "M_UNKNOWN_TOKEN").await;
    homeserver.remove_media("one");
    homeserver.remove_media("two");
    assert_all_routes(Some(TOKEN), 404, "M_NOT_FOUND").await;
}

#[tokio::test]
async fn authorisation_is_cached_per_token_for_its_ttl() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(CLEAN)
        .homeserver(&homeserver)
        .config(r#"download.authorisation_ttl = "1h""#)
        .start()
        .await;
    let path = format!("/download/{}", homeserver.add_bytes("one", png()));
    for _ in 0..3 {
        scanner.client.get(&path).await.assert_media(&png());
    }
    assert_eq!(homeserver.requests().len(), 1, "the download counts as authorisation");
    let unauthorised = scanner.client.request(Method::GET, &path).bearer_auth("bad-token");
    send(unauthorised).await.assert_error(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn authorises_each_token_that_joins_running_scan() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, r#"read line < "$MARKS/gate""#).await;
    scanner.dir.make_fifo("gate");
    homeserver.add_token("second-token");
    let path = format!("/download/{}", homeserver.add_bytes("one", png()));

    let first = scanner.client.get(&path);
    let rest = async {
        wait_until("download has started", || homeserver.download_count() == 1).await;
        let request = |token| scanner.client.request(Method::GET, &path).bearer_auth(token);
        // Rejected while the scan is still blocked.
        send(request("bad-token")).await.assert_error(401, "M_UNKNOWN_TOKEN");
        let second = send(request("second-token"));
        let gate = async {
            homeserver.wait_for_requests(3).await;
            scanner.dir.release_fifo("gate").await;
        };
        tokio::join!(second, gate).0
    };
    let (first, second) = tokio::join!(first, rest);
    first.assert_media(&png());
    second.assert_media(&png());
    assert_eq!(homeserver.download_count(), 1);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn authorises_initiators_token_again_when_it_joins_running_scan() {
    let homeserver = MockHomeserver::start().await;
    let script = r#"echo run >> "$MARKS/runs"; read line < "$MARKS/gate""#;
    let scanner = ScannerBuilder::new(script)
        .homeserver(&homeserver)
        .config("download.authorisation_ttl = 0")
        .start()
        .await;
    scanner.dir.make_fifo("gate");
    let path = format!("/download/{}", homeserver.add_bytes("one", png()));

    let first = scanner.client.get(&path);
    let rest = async {
        wait_until("scan has started", || scanner.dir.mark_count("runs") == 1).await;
        homeserver.revoke_token(TOKEN);
        // Rejected while the scan is still blocked.
        scanner.client.get(&path).await.assert_error(401, "M_UNKNOWN_TOKEN");
        scanner.dir.release_fifo("gate").await;
    };
    let (first, ()) = tokio::join!(first, rest);
    first.assert_media(&png());
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn rejected_token_does_not_affect_concurrent_requests() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let path = format!("/download/{}", homeserver.add_bytes("one", png()));
    let request = |token| send(scanner.client.request(Method::GET, &path).bearer_auth(token));

    let tokens = (0..20).map(|n| if n % 2 == 0 { "bad-token" } else { TOKEN });
    let responses = futures_util::future::join_all(tokens.map(request)).await;

    for (n, response) in responses.iter().enumerate() {
        if n % 2 == 0 {
            response.assert_error(401, "M_UNKNOWN_TOKEN");
        } else {
            response.assert_media(&png());
        }
    }
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn download_error_is_not_shared_with_joined_requests() {
    let homeserver = MockHomeserver::start().await;
    homeserver.add_token("second-token");
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let failures = [
        (429, "M_LIMIT_EXCEEDED", 429, "M_UNKNOWN"),
        (504, "M_NOT_YET_UPLOADED", 504, "MCS_MEDIA_REQUEST_FAILED"),
        (500, "M_UNKNOWN", 502, "MCS_MEDIA_REQUEST_FAILED"),
    ];
    for (joined, (status, errcode, expected, reason)) in (1..).zip(failures) {
        let gate = Gate::default();
        let id = format!("media{status}");
        let media = homeserver.add_media(&id, MockMedia::error(status, errcode).gated_by(&gate));
        let path = format!("/download/{media}");
        let previous = homeserver.requests().len();
        let request = |token| scanner.client.request(Method::GET, &path).bearer_auth(token);

        let first = tokio::spawn(send(request(TOKEN)));
        homeserver.wait_for_requests(previous + 1).await;
        let second = tokio::spawn(send(request("second-token")));
        scanner.wait_for_log("joined a job in progress", joined).await;
        homeserver.add_bytes(&id, png());
        gate.open();

        first.await.unwrap().assert_error(expected, reason);
        second.await.unwrap().assert_media(&png());
    }
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn does_not_forward_token_or_headers_to_redirect_target() {
    let homeserver = MockHomeserver::start().await;
    let other_origin = MockHomeserver::start().await;
    other_origin.add_media("file", MockMedia::new("image/png", png()).served_without_token());
    let target = format!("{}/_matrix/media/v3/download/{NAME}/file", other_origin.url());
    let scanner = ScannerBuilder::new(CLEAN)
        .homeserver(&homeserver)
        .config(
            r#"
            download.allow_private_addresses = true
            download.additional_headers = { x-operator = "secret" }
            download.headers_to_forward = ["x-client"]
            "#,
        )
        .start()
        .await;
    let media = homeserver.add_media(
        "one",
        MockMedia::new("image/png", "").with_status(307).with_header("location", &target),
    );

    let request = scanner.client.request(Method::GET, &format!("/download/{media}"));
    send(request.bearer_auth(TOKEN).header("x-client", "kept")).await.assert_media(&png());

    let requests = homeserver.requests();
    assert_eq!(requests[0].headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(
        (&requests[0].headers["x-operator"], &requests[0].headers["x-client"]),
        (&"secret".parse().unwrap(), &"kept".parse().unwrap())
    );
    let requests = other_origin.requests();
    for name in ["authorization", "x-operator", "x-client", "referer", "cookie"] {
        assert!(!requests[0].headers.contains_key(name), "{name}: {:?}", requests[0].headers);
    }
}

/// Adds media `id` that redirects to a login page with this status, on the same or on another origin.
fn redirect_to_login(homeserver: &MockHomeserver, login: &str, id: &str, status: u16) -> String {
    let redirect = MockMedia::new("text/html", "").with_status(status);
    let redirect = redirect.with_header("location", login).served_before_authentication();
    homeserver.add_media(id, redirect)
}

#[tokio::test]
async fn redirect_to_login_page_is_neither_media_nor_a_grant() {
    let homeserver = MockHomeserver::start().await;
    let other_origin = MockHomeserver::start().await;
    let login = MockMedia::new("text/html", "<title>Sign in</title>").served_without_token();
    homeserver.add_media("login", login.clone());
    other_origin.add_media("login", login);
    let scanner = ScannerBuilder::new(CLEAN)
        .homeserver(&homeserver)
        .config(
            r#"
            download.allow_private_addresses = true
            download.authorisation_ttl = "1h"
            "#,
        )
        .start()
        .await;
    let path = format!("/_matrix/media/v3/download/{NAME}/login");
    for (origin, login) in
        [("same", path.clone()), ("other", format!("{}{path}", other_origin.url()))]
    {
        for status in [301, 302, 303] {
            let id = format!("{origin}-{status}");
            let media = redirect_to_login(&homeserver, &login, &id, status);
            let path = format!("/download/{media}");
            let stranger = || scanner.client.request(Method::GET, &path).bearer_auth("bad-token");
            send(stranger()).await.assert_error(502, "MCS_MEDIA_REQUEST_FAILED");
            homeserver.add_bytes(&id, png());
            scanner.client.get(&path).await.assert_media(&png());
            send(stranger()).await.assert_error(401, "M_UNKNOWN_TOKEN");
        }
    }
    assert!(other_origin.requests().is_empty());
}

#[tokio::test]
async fn requester_that_joins_a_download_of_a_login_page_downloads_again() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let gate = Gate::default();
    let redirect = MockMedia::new("text/html", "").with_status(302).gated_by(&gate);
    let redirect = redirect.with_header("location", "/login").served_before_authentication();
    let media = homeserver.add_media("one", redirect);
    let path = format!("/download/{media}");

    let stranger = send(scanner.client.request(Method::GET, &path).bearer_auth("bad-token"));
    let member = async {
        homeserver.wait_for_requests(1).await;
        homeserver.add_bytes("one", png());
        let release = async {
            scanner.wait_for_log("joined a job in progress", 1).await;
            gate.open();
        };
        tokio::join!(scanner.client.get(&path), release).0
    };
    let (stranger, member) = tokio::join!(stranger, member);
    stranger.assert_error(502, "MCS_MEDIA_REQUEST_FAILED");
    member.assert_media(&png());
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn does_not_follow_redirect_to_private_address() {
    let homeserver = MockHomeserver::start().await;
    let private = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    for (id, host) in
        [("a", "127.0.0.1"), ("b", "2130706433"), ("c", "[::ffff:127.0.0.1]"), ("d", "localhost")]
    {
        let target =
            format!("http://{host}:{}/_matrix/media/v3/download/x/y", private.address.port());
        let media = homeserver.add_media(
            id,
            MockMedia::new("image/png", "").with_status(307).with_header("location", &target),
        );
        let response = scanner.client.get(&format!("/download/{media}")).await;
        response.assert_error(502, "MCS_MEDIA_REQUEST_FAILED");
    }
    assert!(private.requests().is_empty());
}

#[tokio::test]
async fn ignores_token_in_query_and_rejects_second_authorization_header() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let path = format!("/download/{}", homeserver.add_bytes("one", png()));

    let response = scanner.client.get_without_token(&format!("{path}?access_token={TOKEN}")).await;
    response.assert_error(404, "M_NOT_FOUND");
    let twice = scanner.client.request(Method::GET, &path).bearer_auth(TOKEN).bearer_auth(TOKEN);
    let before = homeserver.requests().len();
    send(twice).await.assert_error(401, "M_UNKNOWN_TOKEN");

    assert_eq!(homeserver.requests().len(), before, "the request reached the homeserver");
    assert!(homeserver.requests().iter().all(|request| !request.uri.contains(TOKEN)));
    assert!(!scanner.log().contains(TOKEN), "the log contains the token");
}

#[tokio::test]
async fn requests_without_token_use_legacy_routes() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    homeserver.add_media("old", MockMedia::new("image/png", png()).served_without_token());
    let media = format!("{NAME}/old");

    let response = scanner.client.get_without_token(&format!("/download/{media}")).await;
    response.assert_media(&png());
    let response = scanner.client.get_without_token(&format!("/download/{NAME}/gone")).await;
    response.assert_error(404, "M_NOT_FOUND");

    let paths: Vec<_> = homeserver.requests().into_iter().map(|request| request.uri).collect();
    assert_eq!(
        paths,
        [
            format!("/_matrix/media/v3/download/{NAME}/old"),
            format!("/_matrix/media/v3/download/{NAME}/gone"),
            format!("/_matrix/media/r0/download/{NAME}/gone"),
        ]
    );
}

#[tokio::test]
async fn selects_homeserver_by_host_header_and_not_by_server_name() {
    let (one, two) = (MockHomeserver::start().await, MockHomeserver::start().await);
    let scanner = ScannerBuilder::new(CLEAN)
        .config(&format!(
            r#"
            download.homeservers = {{ "one.example" = "{}", "two.example" = "{}" }}
            download.trusted_proxies = ["127.0.0.1"]
            "#,
            one.url(),
            two.url(),
        ))
        .start()
        .await;
    one.add_bytes("same", png());
    let other = [png(), vec![0]].concat();
    two.add_bytes("same", other.clone());
    let get_with_host = |name: &'static str, host: &'static str| {
        let request = scanner.client.request(Method::GET, &format!("/download/{NAME}/same"));
        send(request.bearer_auth(TOKEN).header(name, host))
    };

    get_with_host("host", "one.example").await.assert_media(&png());
    get_with_host("host", "TWO.example:8443").await.assert_media(&other);
    get_with_host("x-forwarded-host", "two.example").await.assert_media(&other);
    get_with_host("host", "three.example").await.assert_error(404, "M_NOT_FOUND");
    get_with_host("host", NAME).await.assert_error(404, "M_NOT_FOUND");
    assert_eq!((one.download_count(), two.download_count()), (1, 1));
}

#[tokio::test]
async fn forwards_client_address_from_trusted_proxies_only() {
    let homeserver = MockHomeserver::start().await;
    for (trusted, expected) in [("[]", "127.0.0.1"), (r#"["127.0.0.1"]"#, "203.0.113.7")] {
        let scanner = ScannerBuilder::new(CLEAN)
            .homeserver(&homeserver)
            .config(&format!(
                "download.forward_client_address = true\ndownload.trusted_proxies = {trusted}"
            ))
            .start()
            .await;
        let media = homeserver.add_bytes("one", png());
        let request = scanner.client.request(Method::GET, &format!("/download/{media}"));
        let request =
            request.bearer_auth(TOKEN).header("x-forwarded-for", "198.51.100.1, 203.0.113.7");
        send(request).await.assert_media(&png());
        let received = homeserver.requests().pop().unwrap();
        let addresses: Vec<_> = received.headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(addresses, [expected]);
    }
}

#[tokio::test]
async fn request_ids_are_accepted_from_trusted_proxies_only() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let homeserver = MockHomeserver::start().await;
    let long = "a".repeat(65);
    for (trusted, sent, is_accepted) in [
        (r#"["127.0.0.1"]"#, vec!["proxy-1"], true),
        ("[]", vec!["proxy-1"], false),
        (r#"["127.0.0.1"]"#, vec!["proxy-1", "proxy-1"], false),
        (r#"["127.0.0.1"]"#, vec!["proxy 1"], false),
        (r#"["127.0.0.1"]"#, vec![&long], false),
    ] {
        let scanner = ScannerBuilder::new(CLEAN)
            .homeserver(&homeserver)
            .config(&format!("download.trusted_proxies = {trusted}"))
            .start()
            .await;
        let media = homeserver.add_bytes("one", png());
        let request = scanner.client.request(Method::GET, &format!("/download/{media}"));
        let mut request = request.bearer_auth(TOKEN).header("traceparent", TRACE);
        for id in &sent {
            request = request.header("x-request-id", *id);
        }
        send(request).await.assert_media(&png());
        let received = homeserver.requests().pop().unwrap();
        let ids: Vec<_> = received.headers.get_all("x-request-id").iter().collect();
        let [id] = ids[..] else { panic!("{ids:?}") };
        let id = id.to_str().unwrap();
        assert_eq!(id == "proxy-1", is_accepted, "{sent:?} from {trusted}: {id}");
        let trace = received.headers.get("traceparent").map(|trace| trace.to_str().unwrap());
        assert_eq!(trace, (trusted != "[]").then_some(TRACE));
        scanner.wait_for_log(&format!("\"request_id\":\"{id}\""), 1).await;
        assert!(!scanner.log().contains(&long));
    }
}

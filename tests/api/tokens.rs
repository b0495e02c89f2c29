//! Whose token, and where it goes: contract, section of that name.

use reqwest::Method;

use crate::harness::{
    Attachment, Builder, Homeserver, Media, Scanner,
    client::send,
    homeserver::{Gate, NAME, TOKEN},
    png, until,
};

const CLEAN: &str = "exit 0";

#[tokio::test]
async fn cached_media_is_given_to_nobody_whom_the_homeserver_refuses() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(CLEAN)
        .homeserver(&homeserver)
        .config("download.authorisation_ttl = 0")
        .start()
        .await;
    let media = homeserver.has_bytes("one", png());
    let attachment = Attachment::encrypt(&png(), 1);
    let encrypted = homeserver.has_bytes("two", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{encrypted}")).to_string();
    homeserver.knows("second-token");

    let ask = async |token: Option<&str>, status: u16, reason: &str| {
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
            let reply = send(request).await;
            match status {
                200 => assert_eq!(reply.status, 200, "{path} {token:?}"),
                status => reply.is_error(status, reason),
            }
        }
    };
    ask(Some(TOKEN), 200, "").await;
    let downloads = homeserver.downloads();
    ask(Some("second-token"), 200, "").await;
    assert_eq!(homeserver.downloads(), downloads, "asked, not fetched");
    ask(Some("bad-token"), 401, "M_UNKNOWN_TOKEN").await;
    // This homeserver says 404 on its old routes, as Synapse does.
    ask(None, 404, "M_NOT_FOUND").await;
    homeserver.logs_out("second-token");
    ask(Some("second-token"), 401, "M_UNKNOWN_TOKEN").await;
    homeserver.forgets("one");
    homeserver.forgets("two");
    ask(Some(TOKEN), 404, "M_NOT_FOUND").await;
}

#[tokio::test]
async fn a_yes_is_good_for_its_time_and_for_its_token_alone() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(CLEAN)
        .homeserver(&homeserver)
        .config(r#"download.authorisation_ttl = "1h""#)
        .start()
        .await;
    let path = format!("/download/{}", homeserver.has_bytes("one", png()));
    for _ in 0..3 {
        scanner.client.get(&path).await.is_media(&png());
    }
    assert_eq!(homeserver.asked().len(), 1, "the download was a yes");
    let bad = scanner.client.request(Method::GET, &path).bearer_auth("bad-token");
    send(bad).await.is_error(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn who_joins_a_scan_under_way_is_asked_for_too() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, r#"read line < "$MARKS/gate""#).await;
    scanner.place.make_fifo("gate");
    homeserver.knows("second-token");
    let path = format!("/download/{}", homeserver.has_bytes("one", png()));

    let first = scanner.client.get(&path);
    let rest = async {
        until("the download", || homeserver.downloads() == 1).await;
        let request = |token| scanner.client.request(Method::GET, &path).bearer_auth(token);
        // Refused while the scan still waits for the test.
        send(request("bad-token")).await.is_error(401, "M_UNKNOWN_TOKEN");
        let second = send(request("second-token"));
        let gate = async {
            homeserver.was_asked(3).await;
            scanner.place.let_go("gate").await;
        };
        tokio::join!(second, gate).0
    };
    let (first, second) = tokio::join!(first, rest);
    first.is_media(&png());
    second.is_media(&png());
    assert_eq!(homeserver.downloads(), 1);
    scanner.idle().await;
}

#[tokio::test]
async fn who_joins_with_the_token_that_began_the_scan_is_asked_for_all_the_same() {
    let homeserver = Homeserver::start().await;
    let script = r#"echo run >> "$MARKS/runs"; read line < "$MARKS/gate""#;
    let scanner = Builder::new(script)
        .homeserver(&homeserver)
        .config("download.authorisation_ttl = 0")
        .start()
        .await;
    scanner.place.make_fifo("gate");
    let path = format!("/download/{}", homeserver.has_bytes("one", png()));

    let first = scanner.client.get(&path);
    let rest = async {
        until("the scan", || scanner.place.marks("runs") == 1).await;
        homeserver.logs_out(TOKEN);
        // Refused while the scan still waits for the test.
        scanner.client.get(&path).await.is_error(401, "M_UNKNOWN_TOKEN");
        scanner.place.let_go("gate").await;
    };
    let (first, ()) = tokio::join!(first, rest);
    first.is_media(&png());
    scanner.idle().await;
}

#[tokio::test]
async fn a_refused_download_is_its_senders_alone() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let path = format!("/download/{}", homeserver.has_bytes("one", png()));
    let request = |token| send(scanner.client.request(Method::GET, &path).bearer_auth(token));

    let tokens = (0..20).map(|n| if n % 2 == 0 { "bad-token" } else { TOKEN });
    let replies = futures_util::future::join_all(tokens.map(request)).await;

    for (n, reply) in replies.iter().enumerate() {
        if n % 2 == 0 {
            reply.is_error(401, "M_UNKNOWN_TOKEN");
        } else {
            reply.is_media(&png());
        }
    }
    scanner.idle().await;
}

#[tokio::test]
async fn what_befalls_one_before_the_media_is_given_out_is_not_told_to_others() {
    let homeserver = Homeserver::start().await;
    homeserver.knows("second-token");
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let failures = [
        (429, "M_LIMIT_EXCEEDED", 429, "M_UNKNOWN"),
        (504, "M_NOT_YET_UPLOADED", 504, "MCS_MEDIA_REQUEST_FAILED"),
        (500, "M_UNKNOWN", 502, "MCS_MEDIA_REQUEST_FAILED"),
    ];
    for (joined, (status, errcode, told, reason)) in (1..).zip(failures) {
        let gate = Gate::default();
        let id = format!("media{status}");
        let media = homeserver.has(&id, Media::error(status, errcode).behind(&gate));
        let path = format!("/download/{media}");
        let asked = homeserver.asked().len();
        let request = |token| scanner.client.request(Method::GET, &path).bearer_auth(token);

        let first = tokio::spawn(send(request(TOKEN)));
        homeserver.was_asked(asked + 1).await;
        let second = tokio::spawn(send(request("second-token")));
        scanner.logged("waits with others", joined).await;
        homeserver.has_bytes(&id, png());
        gate.open();

        first.await.unwrap().is_error(told, reason);
        second.await.unwrap().is_media(&png());
    }
    scanner.idle().await;
}

#[tokio::test]
async fn a_token_follows_no_redirect_to_another_origin() {
    let homeserver = Homeserver::start().await;
    let elsewhere = Homeserver::start().await;
    elsewhere.has("file", Media::new("image/png", png()).open());
    let target = format!("{}/_matrix/media/v3/download/{NAME}/file", elsewhere.url());
    let scanner = Builder::new(CLEAN)
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
    let media =
        homeserver.has("one", Media::new("image/png", "").status(307).with("location", &target));

    let request = scanner.client.request(Method::GET, &format!("/download/{media}"));
    send(request.bearer_auth(TOKEN).header("x-client", "kept")).await.is_media(&png());

    let asked = homeserver.asked();
    assert_eq!(asked[0].headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(
        (&asked[0].headers["x-operator"], &asked[0].headers["x-client"]),
        (&"secret".parse().unwrap(), &"kept".parse().unwrap())
    );
    let asked = elsewhere.asked();
    for name in ["authorization", "x-operator", "x-client", "referer", "cookie"] {
        assert!(!asked[0].headers.contains_key(name), "{name}: {:?}", asked[0].headers);
    }
}

#[tokio::test]
async fn a_redirect_into_the_private_network_is_not_followed() {
    let homeserver = Homeserver::start().await;
    let inside = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    for (id, host) in
        [("a", "127.0.0.1"), ("b", "2130706433"), ("c", "[::ffff:127.0.0.1]"), ("d", "localhost")]
    {
        let target =
            format!("http://{host}:{}/_matrix/media/v3/download/x/y", inside.address.port());
        let media =
            homeserver.has(id, Media::new("image/png", "").status(302).with("location", &target));
        let reply = scanner.client.get(&format!("/download/{media}")).await;
        reply.is_error(502, "MCS_MEDIA_REQUEST_FAILED");
    }
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn a_token_in_the_query_or_twice_is_none() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let path = format!("/download/{}", homeserver.has_bytes("one", png()));

    let reply = scanner.client.get_without_token(&format!("{path}?access_token={TOKEN}")).await;
    reply.is_error(404, "M_NOT_FOUND");
    let twice = scanner.client.request(Method::GET, &path).bearer_auth(TOKEN).bearer_auth(TOKEN);
    let before = homeserver.asked().len();
    send(twice).await.is_error(401, "M_UNKNOWN_TOKEN");

    assert_eq!(homeserver.asked().len(), before, "it never left");
    assert!(homeserver.asked().iter().all(|asked| !asked.uri.contains(TOKEN)));
    assert!(!scanner.log().contains(TOKEN), "a token in the log");
}

#[tokio::test]
async fn an_old_homeserver_is_asked_by_its_old_routes() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    homeserver.has("old", Media::new("image/png", png()).open());
    let media = format!("{NAME}/old");

    let reply = scanner.client.get_without_token(&format!("/download/{media}")).await;
    reply.is_media(&png());
    let reply = scanner.client.get_without_token(&format!("/download/{NAME}/gone")).await;
    reply.is_error(404, "M_NOT_FOUND");

    let paths: Vec<_> = homeserver.asked().into_iter().map(|asked| asked.uri).collect();
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
async fn the_requests_host_chooses_the_homeserver_and_never_the_medias_name() {
    let (one, two) = (Homeserver::start().await, Homeserver::start().await);
    let scanner = Builder::new(CLEAN)
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
    one.has_bytes("same", png());
    let other = [png(), vec![0]].concat();
    two.has_bytes("same", other.clone());
    let ask = |name: &'static str, host: &'static str| {
        let request = scanner.client.request(Method::GET, &format!("/download/{NAME}/same"));
        send(request.bearer_auth(TOKEN).header(name, host))
    };

    ask("host", "one.example").await.is_media(&png());
    ask("host", "TWO.example:8443").await.is_media(&other);
    ask("x-forwarded-host", "two.example").await.is_media(&other);
    ask("host", "three.example").await.is_error(404, "M_NOT_FOUND");
    ask("host", NAME).await.is_error(404, "M_NOT_FOUND");
    assert_eq!((one.downloads(), two.downloads()), (1, 1));
}

#[tokio::test]
async fn the_clients_address_is_told_once_and_believed_of_trusted_proxies_alone() {
    let homeserver = Homeserver::start().await;
    for (trusted, expected) in [("[]", "127.0.0.1"), (r#"["127.0.0.1"]"#, "203.0.113.7")] {
        let scanner = Builder::new(CLEAN)
            .homeserver(&homeserver)
            .config(&format!(
                "download.forward_client_address = true\ndownload.trusted_proxies = {trusted}"
            ))
            .start()
            .await;
        let media = homeserver.has_bytes("one", png());
        let request = scanner.client.request(Method::GET, &format!("/download/{media}"));
        let request =
            request.bearer_auth(TOKEN).header("x-forwarded-for", "198.51.100.1, 203.0.113.7");
        send(request).await.is_media(&png());
        let asked = homeserver.asked().pop().unwrap();
        let told: Vec<_> = asked.headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(told, [expected]);
    }
}

//! What is remembered, for whom, and for how long: contract, "What is remembered".

use crate::harness::{Attachment, Builder, Homeserver, Media, Scanner, noise, png, until};

/// Clean, and notes each run.
const COUNTING: &str = r#"echo run >> "$MARKS/runs""#;

/// Clean once the test lets it go, and notes each run.
const WAITING: &str = r#"echo run >> "$MARKS/runs"; read line < "$MARKS/gate""#;

#[tokio::test]
async fn fifty_who_ask_at_once_share_one_download_and_one_scan() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, WAITING).await;
    scanner.place.make_fifo("gate");
    let media = homeserver.has_bytes("one", png());

    let path = format!("/download/{media}");
    let all = (0..50).map(|_| scanner.client.get(&path));
    let all = futures_util::future::join_all(all);
    let (replies, ()) = tokio::join!(all, scanner.place.let_go("gate"));

    for reply in &replies {
        reply.is_media(&png());
    }
    assert_eq!((homeserver.downloads(), scanner.place.marks("runs")), (1, 1));
    scanner.idle().await;
}

#[tokio::test]
async fn two_media_with_the_same_bytes_share_one_scan_even_while_it_runs() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, WAITING).await;
    scanner.place.make_fifo("gate");
    let (one, two) = (homeserver.has_bytes("one", png()), homeserver.has_bytes("two", png()));

    let both = async {
        let (one, two) = (format!("/scan/{one}"), format!("/download/{two}"));
        tokio::join!(scanner.client.get(&one), scanner.client.get(&two))
    };
    let gate = async {
        // Both are in before the script may go on.
        until("both downloads", || homeserver.downloads() == 2).await;
        scanner.place.let_go("gate").await;
    };
    let ((one, two), ()) = tokio::join!(both, gate);

    one.is_clean();
    two.is_media(&png());
    assert_eq!(scanner.place.marks("runs"), 1);
    scanner.idle().await;
}

#[tokio::test]
async fn a_large_clean_media_is_fetched_again_and_not_scanned_again() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(COUNTING)
        .homeserver(&homeserver)
        .config("result_cache.max_file_size = 1000")
        .start()
        .await;
    let bytes = noise(1, 300_000);
    let media = homeserver.has_bytes("large", bytes.clone());
    for _ in 0..3 {
        scanner.client.get(&format!("/download/{media}")).await.is_media(&bytes);
    }
    let attachment = Attachment::encrypt(&noise(2, 300_000), 1);
    let encrypted = homeserver.has_bytes("encrypted", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{encrypted}"));
    for _ in 0..3 {
        let reply = scanner.client.post("/download_encrypted", &body).await;
        reply.is_media(&attachment.ciphertext);
    }
    assert_eq!((homeserver.downloads(), scanner.place.marks("runs")), (6, 2));

    // Who first wanted no more than the verdict has left no bytes behind.
    let bytes = noise(3, 2_000_000);
    let media = homeserver.has_bytes("larger", bytes.clone());
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    scanner.client.get(&format!("/download/{media}")).await.is_media(&bytes);
    assert_eq!((homeserver.downloads(), scanner.place.marks("runs")), (8, 3));
    scanner.idle().await;
}

#[tokio::test]
async fn a_large_media_that_has_changed_is_scanned_anew() {
    let homeserver = Homeserver::start().await;
    let script = r#"echo run >> "$MARKS/runs"; ! grep -q dirty "$1""#;
    let scanner = Builder::new(script)
        .homeserver(&homeserver)
        .config("result_cache.max_file_size = 1000")
        .start()
        .await;
    let clean = noise(1, 300_000);
    let media = homeserver.has_bytes("large", clean.clone());
    scanner.client.get(&format!("/download/{media}")).await.is_media(&clean);

    let dirty = [&clean[..], b"dirty"].concat();
    homeserver.has_bytes("large", dirty);
    let reply = scanner.client.get(&format!("/download/{media}")).await;
    reply.is_error(403, "MCS_MEDIA_NOT_CLEAN");

    let other = noise(2, 400_000);
    homeserver.has_bytes("large", other.clone());
    // Its verdict is known now, and told as long as it is remembered: nothing is fetched for it.
    scanner.client.get(&format!("/download/{media}")).await.is_error(403, "MCS_MEDIA_NOT_CLEAN");
    assert_eq!(scanner.place.marks("runs"), 2);
    scanner.idle().await;
}

#[tokio::test]
async fn a_verdict_is_that_of_the_script_which_gave_it() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, COUNTING).await;
    let path = format!("/scan/{}", homeserver.has_bytes("one", png()));
    scanner.client.get(&path).await.is_clean();

    scanner.place.write_script("script.sh", "echo stricter; exit 1");
    let end = std::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        // The script's file is looked at once a second.
        let reply = scanner.client.get(&path).await;
        if reply.json()["clean"] == false {
            reply.is_not_clean("File not clean. Output: 'stricter'");
            break;
        }
        assert!(std::time::Instant::now() < end, "the new script is never asked");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_verdict_of_a_script_that_was_changed_meanwhile_is_given_and_not_remembered() {
    let homeserver = Homeserver::start().await;
    for after in ["exit 0", "exit 127"] {
        let scanner = Scanner::start(&homeserver, "").await;
        scanner.place.make_fifo("gate");
        let script = format!("{WAITING}; {after}");
        scanner.place.write_script("script.sh", &script);
        let path = format!("/scan/{}", homeserver.has_bytes("one", png()));
        let status = if after == "exit 0" { 200 } else { 500 };

        let request = scanner.client.get(&path);
        let change = async {
            until("it runs", || scanner.place.marks("runs") == 1).await;
            scanner.place.write_script("script.sh", "exit 1");
            // Back again: nobody can say any more which of them ran.
            scanner.place.write_script("script.sh", &script);
            scanner.place.let_go("gate").await;
        };
        let (reply, ()) = tokio::join!(request, change);
        assert_eq!(reply.status, status);

        let (reply, ()) = tokio::join!(scanner.client.get(&path), scanner.place.let_go("gate"));
        assert_eq!(reply.status, status);
        assert_eq!(scanner.place.marks("runs"), 2);
        scanner.idle().await;
    }
}

#[tokio::test]
async fn a_verdict_of_a_script_that_a_link_led_to_for_a_moment_is_not_remembered() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, "").await;
    let place = &scanner.place;
    place.make_fifo("gate");
    let strict = place.write_script("strict.sh", "exit 1");
    let lax = place.write_script("lax.sh", WAITING);
    let script = strict.with_file_name("script.sh");
    let lead_to = |target: &std::path::Path| {
        let link = script.with_extension("new");
        std::os::unix::fs::symlink(target, &link).unwrap();
        std::fs::rename(&link, &script).unwrap();
    };
    lead_to(&strict);
    // The strict one is known now, and its file not looked at again for a second.
    let known = homeserver.has_bytes("known", noise(1, 1000));
    let end = std::time::Instant::now() + crate::harness::PATIENCE;
    while scanner.client.get(&format!("/scan/{known}")).await.json()["clean"] == true {
        assert!(std::time::Instant::now() < end, "the strict script is never asked");
    }

    lead_to(&lax);
    let path = format!("/scan/{}", homeserver.has_bytes("one", png()));
    let request = scanner.client.get(&path);
    let change = async {
        until("it runs", || place.marks("runs") == 1).await;
        lead_to(&strict);
        place.let_go("gate").await;
    };
    let (reply, ()) = tokio::join!(request, change);
    reply.is_clean();
    scanner.client.get(&path).await.is_not_clean("File not clean (no output)");
    scanner.idle().await;
}

#[tokio::test]
async fn exit_codes_to_ignore_are_not_remembered() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(r#"echo run >> "$MARKS/runs"; exit 5"#)
        .homeserver(&homeserver)
        .config("result_cache.exit_codes_to_ignore = [5]")
        .start()
        .await;
    let path = format!("/scan/{}", homeserver.has_bytes("one", png()));
    for _ in 0..3 {
        scanner.client.get(&path).await.is_not_clean("File not clean (no output)");
    }
    assert_eq!(scanner.place.marks("runs"), 3);
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_moment_and_is_no_verdict() {
    let homeserver = Homeserver::start().await;
    let failing = r#"echo run >> "$MARKS/runs"; exit 127"#;
    for (ttl, runs) in [("1h", 1), ("0", 3)] {
        let scanner = Builder::new(failing)
            .homeserver(&homeserver)
            .config(&format!("result_cache.failure_ttl = {}", toml::Value::from(ttl)))
            .start()
            .await;
        let media = homeserver.has_bytes("one", png());
        scanner.client.get(&format!("/scan/{media}")).await.is_error(500, "M_UNKNOWN");
        scanner.client.get(&format!("/download/{media}")).await.is_error(500, "M_UNKNOWN");
        scanner.client.get(&format!("/scan/{media}")).await.is_error(500, "M_UNKNOWN");
        assert_eq!(scanner.place.marks("runs"), runs, "with failure_ttl = {ttl}");
        scanner.idle().await;
    }
}

#[tokio::test]
async fn types_are_allowed_by_content_on_every_route_and_without_a_scan() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(COUNTING)
        .homeserver(&homeserver)
        .config(r#"scan.allowed_mimetypes = ["image/png"]"#)
        .start()
        .await;
    let text =
        homeserver.has("text", Media::new("image/png", "plain text that claims to be a PNG\n"));
    for route in ["scan", "download", "thumbnail"] {
        let reply = scanner.client.get(&format!("/{route}/{text}")).await;
        reply.is_error(403, "MCS_MIME_TYPE_FORBIDDEN");
    }
    let attachment = Attachment::encrypt(b"plain text\n", 1);
    let encrypted = homeserver.has_bytes("encrypted", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{encrypted}"));
    scanner.client.post("/scan_encrypted", &body).await.is_error(403, "MCS_MIME_TYPE_FORBIDDEN");
    assert_eq!(scanner.place.marks("runs"), 0);

    // A type that is allowed, declared as one that is not: it is served as what it is.
    let honest = homeserver.has("honest", Media::new("text/html", png()));
    let reply = scanner.client.get(&format!("/download/{honest}")).await;
    reply.is_media(&png());
    assert_eq!(reply.header("content-type"), "image/png");
    scanner.idle().await;
}

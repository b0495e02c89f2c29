//! What never reaches the log, and what never reaches a script.

use std::collections::BTreeMap;

use reqwest::Method;

use crate::harness::{
    Attachment, Builder, Homeserver, Media, attachment::seal, client::send, scanner::as_root,
    skipped,
};

const CONTENT: &str = "plain text that somebody wrote to somebody\n";

#[tokio::test]
async fn no_secret_is_ever_logged() {
    for level in ["debug", "trace"] {
        let homeserver = Homeserver::start().await;
        homeserver.knows("syt_token_of_alice");
        let scanner = Builder::new("cat \"$1\" >&2; exit 0")
            .homeserver(&homeserver)
            .config(&format!("log.level = \"{level}\""))
            .config(r#"download.additional_headers = { "x-from" = "secret-of-operator" }"#)
            .config(r#"download.headers_to_forward = ["x-forwarded-secret"]"#)
            .config(r#"sandbox.environment = { KEY = "secret-of-script" }"#)
            .start()
            .await;
        let attachment = Attachment::encrypt(CONTENT.as_bytes(), 7);
        let media = homeserver.has_bytes("encrypted", attachment.ciphertext.clone());
        let plain = homeserver.has_bytes("plain", CONTENT);
        let elsewhere = Media::new("image/png", "").status(302).with(
            "location",
            "/_matrix/client/v1/media/download/hs.example/plain?signature=secret-of-bucket",
        );
        let redirected = homeserver.has("redirected", elsewhere);
        let failing = homeserver.has("failing", Media::error(500, ""));
        let body = attachment.body(&format!("mxc://{media}"));
        let sealed = seal(&scanner.client.public_key().await, body.to_string().as_bytes());

        let query = "?access_token=secret-of-query&width=1";
        for token in ["syt_token_of_alice", "syt_token_of_mallory"] {
            for media in [&plain, &redirected, &failing] {
                for route in ["scan", "download", "thumbnail"] {
                    let path = format!("/{route}/{media}{query}");
                    let request = scanner.client.request(Method::GET, &path).bearer_auth(token);
                    send(request.header("x-forwarded-secret", "secret-of-client")).await;
                }
            }
            for body in [&body, &sealed] {
                for route in ["scan_encrypted", "download_encrypted"] {
                    let path = format!("/{route}{query}");
                    let request = scanner.client.request(Method::POST, &path).bearer_auth(token);
                    send(request.body(body.to_string())).await;
                }
            }
        }
        for path in ["/nowhere", "/scan/hs.example/a%2fb", "/download/hs.example/plain/name"] {
            let request = scanner.client.request(Method::GET, &format!("{path}{query}"));
            send(request.bearer_auth("syt_token_of_alice")).await;
        }
        scanner.idle().await;

        let log = scanner.log();
        assert!(log.contains("\"answered\"") && log.contains("mxc://hs.example/plain"));
        let file = &body["file"];
        let key = std::fs::read_to_string(scanner.place.path("request_secret")).unwrap();
        for secret in [
            "syt_token",
            "secret-of-operator",
            "secret-of-client",
            "secret-of-script",
            "secret-of-query",
            "secret-of-bucket",
            "access_token",
            file["key"]["k"].as_str().unwrap(),
            file["iv"].as_str().unwrap(),
            sealed["encrypted_body"]["ciphertext"].as_str().unwrap(),
            key.trim(),
        ] {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} is in the log at {level}");
        }
        // The script's own words on stderr are logged; nothing else of a media is.
        let words = CONTENT.trim();
        let line = log
            .lines()
            .find(|line| line.contains(words) && !line.contains("the script wrote to stderr"));
        assert_eq!(line, None, "a media is in the log at {level}");
    }
}

#[tokio::test]
async fn a_script_gets_the_environment_that_is_configured_and_nothing_else() {
    let homeserver = Homeserver::start().await;
    // But for what the shell adds to it.
    let script = r#"
        env | grep -v '^\(PWD\|_\)=' > "$MARKS/environ"
        echo "$# $PWD $1" > "$MARKS/arguments"
    "#;
    let builder = Builder::new(script)
        .homeserver(&homeserver)
        .config(r#"sandbox.environment = { CLAMD = "/run/clamd.sock" }"#)
        .environment("MCS_LOG__LEVEL", "debug")
        .environment("MCS_DOWNLOAD__ADDITIONAL_HEADERS", r#"{ "x" = "secret-of-operator" }"#)
        .environment("AWS_SECRET_ACCESS_KEY", "secret-of-machine")
        .environment("LD_PRELOAD_NOT", "x")
        .environment("HOME", "/root");
    let scanner = builder.start().await;
    let media = homeserver.has_bytes("abc", CONTENT);
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    scanner.idle().await;

    let environ = scanner.place.mark("environ");
    let environ: BTreeMap<_, _> = environ.lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!(
        environ.keys().copied().collect::<Vec<_>>(),
        ["CLAMD", "HOME", "LANG", "PATH", "TMPDIR"],
        "{environ:?}"
    );
    let temp = scanner.place.path("temp");
    let job = environ["HOME"];
    assert!(job.starts_with(temp.to_str().unwrap()), "{job}");
    assert_eq!(environ["TMPDIR"], format!("{job}/tmp"));
    assert_eq!(environ["CLAMD"], "/run/clamd.sock");
    assert_eq!(scanner.place.mark("arguments"), format!("1 {job} {job}/media\n"));
}

#[tokio::test]
async fn nobody_of_the_same_user_reads_the_memory_of_the_server() {
    let test = "nobody_of_the_same_user_reads_the_memory_of_the_server";
    if as_root() {
        skipped(test, "root may read everybody's; the unprivileged run sees it");
        return;
    }
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new("exit 0").homeserver(&homeserver).start().await;
    for file in ["mem", "environ", "maps"] {
        // The control: this test's own.
        std::fs::File::open(format!("/proc/self/{file}")).unwrap();
        let refused = std::fs::File::open(format!("/proc/{}/{file}", scanner.pid())).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{file}");
    }
}

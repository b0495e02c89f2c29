//! Tests that secrets reach neither the log nor a script.

use std::collections::BTreeMap;

use reqwest::Method;

use crate::harness::{
    Attachment, MockHomeserver, MockMedia, ScannerBuilder, attachment::seal, client::send,
    report_skipped, scanner::is_root,
};

const CONTENT: &str = "plain text of a private message\n";

#[tokio::test]
async fn logs_contain_no_secrets() {
    for level in ["debug", "trace"] {
        let homeserver = MockHomeserver::start().await;
        homeserver.add_token("syt_token_of_alice");
        let scanner = ScannerBuilder::new("cat \"$1\" >&2; exit 0")
            .homeserver(&homeserver)
            .config(&format!("log.level = \"{level}\""))
            .config(r#"download.additional_headers = { "x-from" = "secret-of-operator" }"#)
            .config(r#"download.headers_to_forward = ["x-forwarded-secret"]"#)
            .config(r#"sandbox.environment = { KEY = "secret-of-script" }"#)
            .start()
            .await;
        let attachment = Attachment::encrypt(CONTENT.as_bytes(), 7);
        let media = homeserver.add_bytes("encrypted", attachment.ciphertext.clone());
        let plain = homeserver.add_bytes("plain", CONTENT);
        let elsewhere = MockMedia::new("image/png", "").with_status(302).with_header(
            "location",
            "/_matrix/client/v1/media/download/hs.example/plain?signature=secret-of-bucket",
        );
        let redirected = homeserver.add_media("redirected", elsewhere);
        let failing = homeserver.add_media("failing", MockMedia::error(500, ""));
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
        scanner.wait_until_idle().await;

        let log = scanner.log();
        assert!(log.contains("\"answered\"") && log.contains("mxc://hs.example/plain"));
        let file = &body["file"];
        let key = std::fs::read_to_string(scanner.dir.path("request_secret")).unwrap();
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
        // Output of the script on stderr is logged. No other line contains file contents.
        let content = CONTENT.trim();
        let line = log.lines().find(|line| {
            line.contains(content) && !line.contains("script wrote to standard error")
        });
        assert_eq!(line, None, "file contents are in the log at {level}");
    }
}

#[tokio::test]
async fn script_gets_only_configured_environment() {
    let homeserver = MockHomeserver::start().await;
    // `grep` removes the variables that the shell adds.
    let script = r#"
        env | grep -v '^\(PWD\|_\)=' > "$MARKS/environ"
        echo "$# $PWD $1" > "$MARKS/arguments"
    "#;
    let builder = ScannerBuilder::new(script)
        .homeserver(&homeserver)
        .config(r#"sandbox.environment = { CLAMD = "/run/clamd.sock" }"#)
        .env("MCS_LOG__LEVEL", "debug")
        .env("MCS_DOWNLOAD__ADDITIONAL_HEADERS", r#"{ "x" = "secret-of-operator" }"#)
        .env("AWS_SECRET_ACCESS_KEY", "secret-of-machine")
        .env("LD_PRELOAD_NOT", "x")
        .env("HOME", "/root");
    let scanner = builder.start().await;
    let media = homeserver.add_bytes("abc", CONTENT);
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    scanner.wait_until_idle().await;

    let environ = scanner.dir.read_mark("environ");
    let environ: BTreeMap<_, _> = environ.lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!(
        environ.keys().copied().collect::<Vec<_>>(),
        ["CLAMD", "HOME", "LANG", "PATH", "TMPDIR"],
        "{environ:?}"
    );
    let temp = scanner.dir.path("temp");
    let job = environ["HOME"];
    assert!(job.starts_with(temp.to_str().unwrap()), "{job}");
    assert_eq!(environ["TMPDIR"], format!("{job}/tmp"));
    assert_eq!(environ["CLAMD"], "/run/clamd.sock");
    assert_eq!(scanner.dir.read_mark("arguments"), format!("1 {job} {job}/media\n"));
}

#[tokio::test]
async fn server_memory_is_unreadable_for_same_user() {
    let test = "server_memory_is_unreadable_for_same_user";
    if is_root() {
        report_skipped(test, "root may read any process; covered by the unprivileged run");
        return;
    }
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new("exit 0").homeserver(&homeserver).start().await;
    for file in ["mem", "environ", "maps"] {
        // Control: the files of this test process are readable.
        std::fs::File::open(format!("/proc/self/{file}")).unwrap();
        let refused = std::fs::File::open(format!("/proc/{}/{file}", scanner.pid())).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{file}");
    }
}

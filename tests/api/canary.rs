//! A script that has the wrong word on a known file is not believed about others.

use crate::harness::{Builder, Homeserver, png, until};

/// Knows the test file, until it is told to know nothing.
const KNOWS: &str = r#"
    [ -e "$MARKS/blind" ] && exit 0
    echo run >> "$MARKS/runs"
    if grep -q EICAR-STANDARD "$1"; then exit 1; fi
"#;

#[tokio::test]
async fn a_script_that_lets_everything_pass_is_not_asked_until_it_is_mended() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", png());
    let builder = Builder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.config("scan.canary = \"eicar\"").start().await;
    scanner.logged("not ready", 1).await;
    assert!(scanner.log().contains("calls the infected sample clean"), "{}", scanner.log());
    for route in ["scan", "download"] {
        let reply = scanner.client.get(&format!("/{route}/{media}")).await;
        reply.is_error(503, "M_UNKNOWN");
    }
    assert_eq!(homeserver.downloads(), 0, "nothing is fetched that cannot be scanned");
    scanner.client.public_key().await;

    scanner.place.write_script("script.sh", KNOWS);
    scanner.logged("ready: each engine knows", 1).await;
    scanner.client.get(&format!("/download/{media}")).await.is_media(&png());
}

#[tokio::test]
async fn a_script_that_becomes_blind_takes_its_verdicts_with_it() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", png());
    let builder = Builder::new(KNOWS).homeserver(&homeserver);
    let config = "scan.canary = \"eicar\"\nscan.canary_interval = \"1s\"";
    let scanner = builder.config(config).start().await;
    scanner.logged("ready: each engine knows", 1).await;
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.is_clean();
    std::fs::write(scanner.place.path("marks").join("blind"), "").unwrap();
    scanner.logged("not ready", 1).await;
    scanner.client.get(&path).await.is_error(503, "M_UNKNOWN");
    std::fs::remove_file(scanner.place.path("marks").join("blind")).unwrap();
    scanner.logged("ready: each engine knows", 2).await;
    scanner.client.get(&path).await.is_clean();
}

#[tokio::test]
async fn what_was_being_scanned_when_the_canary_failed_is_not_believed_either() {
    let script = format!(
        r#"grep -qE "EICAR|scanner could object" "$1" || {{ echo scanned >> "$MARKS/scanned"; read go < "$MARKS/go"; }}{KNOWS}"#
    );
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", png());
    let builder = Builder::new(&script).homeserver(&homeserver);
    builder.place().make_fifo("go");
    let config = "scan.canary = \"eicar\"\nscan.canary_interval = \"1s\"";
    let scanner = builder.config(config).start().await;
    scanner.logged("ready: each engine knows", 1).await;
    let path = format!("/scan/{media}");
    let (reply, ()) = tokio::join!(scanner.client.get(&path), async {
        until("the scan", || scanner.place.marks("scanned") == 1).await;
        std::fs::write(scanner.place.path("marks").join("blind"), "").unwrap();
        scanner.logged("not ready", 1).await;
        std::fs::remove_file(scanner.place.path("marks").join("blind")).unwrap();
        scanner.logged("ready: each engine knows", 2).await;
        scanner.place.let_go("go").await;
    });
    reply.is_error(503, "M_UNKNOWN");
    // Nor is it remembered.
    let (reply, ()) = tokio::join!(scanner.client.get(&path), scanner.place.let_go("go"));
    reply.is_clean();
    assert_eq!(scanner.place.marks("scanned"), 2);
}

#[tokio::test]
async fn a_script_that_refuses_everything_or_cannot_tell_is_not_asked_either() {
    for (script, said) in [
        ("echo broken; exit 1", "calls the clean sample not clean: \\\"broken\\\""),
        ("exit 127", "gives no verdict on the infected sample"),
        ("kill -SEGV $$", "gives no verdict on the infected sample"),
    ] {
        let homeserver = Homeserver::start().await;
        let media = homeserver.has_bytes("abc", png());
        let builder = Builder::new(script).homeserver(&homeserver);
        let scanner = builder.config("scan.canary = \"eicar\"").start().await;
        scanner.logged("not ready", 1).await;
        assert!(scanner.log().contains(said), "{said}: {}", scanner.log());
        scanner.client.get(&format!("/scan/{media}")).await.is_error(503, "M_UNKNOWN");
    }
}

#[tokio::test]
async fn without_a_canary_a_script_is_asked_at_once() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", png());
    let builder = Builder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.config("scan.canary = \"off\"").start().await;
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    assert!(!scanner.log().contains("canary"), "{}", scanner.log());
}

#[tokio::test]
async fn the_operators_samples_are_given_whatever_the_lists_say_of_their_types() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", png());
    let builder = Builder::new(r#"if grep -q WRONG "$1"; then exit 1; fi"#).homeserver(&homeserver);
    std::fs::write(builder.place().path("wrong.txt"), "a WRONG one").unwrap();
    std::fs::write(builder.place().path("right.txt"), "a right one").unwrap();
    let config = "scan.canary = { infected = \"wrong.txt\", clean = \"right.txt\" }\n\
                  scan.allowed_mimetypes = [\"image/png\"]";
    let scanner = builder.config(config).start().await;
    scanner.logged("ready: each engine knows", 1).await;
    scanner.client.get(&format!("/download/{media}")).await.is_media(&png());
}

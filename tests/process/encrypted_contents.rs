//! `scan.on_encrypted` while the service runs, and for files of this machine.

use std::fs;

use crate::{
    harness::{Builder, Homeserver, Scanner},
    reload::takes_over,
};

const ZIP: &[u8] = include_bytes!("../../fuzz/corpus/encrypted/encrypted.zip");

const REFUSED: &str = "File not clean. Output: 'encrypted contents (zip)'";

#[tokio::test]
async fn another_value_holds_from_the_next_request_on() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new("exit 0")
        .homeserver(&homeserver)
        .config("result_cache.failure_ttl = \"1h\"")
        .start()
        .await;
    let path = format!("/scan/{}", homeserver.has_bytes("zip", ZIP));
    let scan = async |scanner: &Scanner| scanner.client.get(&path).await;
    scan(&scanner).await.is_not_clean(REFUSED);
    takes_over(&scanner, "scan.on_encrypted = \"fail\"").await;
    scan(&scanner).await.is_error(422, "M_UNKNOWN");
    takes_over(&scanner, "scan.on_encrypted = \"pass\"").await;
    scan(&scanner).await.is_clean();
    takes_over(&scanner, "scan.on_encrypted = \"fail\"").await;
    scan(&scanner).await.is_error(422, "M_UNKNOWN");
    takes_over(&scanner, "-scan.on_encrypted").await;
    scan(&scanner).await.is_not_clean(REFUSED);
}

#[test]
fn a_file_of_this_machine_has_the_same_outcome() {
    for (value, code, says) in [
        ("refuse", 1, "encrypted contents (zip)"),
        ("fail", 2, "the contents need a password: zip"),
        ("pass", 0, "clean"),
    ] {
        let builder = Builder::new("exit 0").config(&format!("scan.on_encrypted = {value:?}"));
        let file = builder.place().path("encrypted.zip");
        fs::write(&file, ZIP).unwrap();
        let (ended, stdout, stderr) = builder.run(&["scan", file.to_str().unwrap()]);
        let said = stdout + &stderr;
        assert_eq!(ended, Some(code), "{value}: {said}");
        assert!(said.contains(says), "{value}: {said}");
    }
}

#[test]
fn the_canary_tests_engines_without_it() {
    // A sample in an encrypted archive must not hide that the engine finds nothing.
    let builder = Builder::new("exit 0").config(
        "scan.canary = { infected = \"infected.zip\", clean = \"clean\" }\nscan.on_encrypted = \"refuse\"",
    );
    fs::write(builder.place().path("infected.zip"), ZIP).unwrap();
    fs::write(builder.place().path("clean"), "clean").unwrap();
    let (ended, stdout, stderr) = builder.run(&["check-config"]);
    let said = stdout + &stderr;
    assert_ne!(ended, Some(0), "{said}");
    assert!(said.contains("calls the infected sample clean"), "{said}");
}

//! The command that removes the media of a job.

use crate::harness::{MockHomeserver, ScannerBuilder, png};

#[tokio::test]
async fn runs_removal_command_on_media_after_response() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let removal = builder.dir().write_script(
        "removal.sh",
        r#"
        read go < "$MARKS/go"
        echo "$1 $2 $(cat "$2")" >> "$MARKS/removed"
        rm -f "$2"
        exit 1
        "#,
    );
    let config = format!("scan.removal_command = [\"{}\", \"-u\"]", removal.display());
    let scanner = builder.config(&config).start().await;
    scanner.dir.make_fifo("go");
    let media = homeserver.add_bytes("abc", "content");

    scanner.client.get(&format!("/download/{media}")).await.assert_media(b"content");
    assert_eq!(scanner.helper_count(), 1, "the job was removed before the removal command ended");
    assert_eq!(scanner.dir.mark_count("removed"), 0);
    scanner.dir.release_fifo("go").await;
    scanner.wait_until_idle().await;
    let removed = scanner.dir.read_mark("removed");
    assert!(removed.starts_with("-u /") && removed.ends_with("/media content\n"), "{removed}");
    // Its exit code 1 does not affect the verdict.
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
}

#[tokio::test]
async fn serves_media_when_removal_command_is_missing() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let removal = builder.dir().write_script("removal.sh", "exit 0");
    let config = format!("scan.removal_command = [\"{}\"]", removal.display());
    let scanner = builder.config(&config).start().await;
    std::fs::remove_file(removal).unwrap();
    let media = homeserver.add_bytes("abc", png());

    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    scanner.wait_until_idle().await;
    scanner.wait_for_log("removal_command could not start", 1).await;
}

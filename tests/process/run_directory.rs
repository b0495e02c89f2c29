//! The temporary directory of the running service disappears.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::PathBuf,
};

use crate::{
    harness::{MockHomeserver, ScannerBuilder, ScannerProcess, noise, scanner::list_dir},
    operations::get,
};

const CREATED_AGAIN: &str = "the temporary directory had disappeared, created it again";
const LOST: &str = "the temporary directory has disappeared and cannot be created again";

/// Starts a service with engines that run in the sandbox.
async fn start(homeserver: &MockHomeserver) -> ScannerProcess {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/config/rules/test-file.yar");
    let builder = ScannerBuilder::new(r#"echo run >> "$MARKS/runs""#).homeserver(homeserver);
    fs::create_dir_all(builder.dir().path("parent/temp")).unwrap();
    let config = format!("scan.engines = ['script', 'rules']\nrules.paths = ['{rules}']");
    builder.config(&config).config("scan.temp_directory = 'parent/temp'").start().await
}

fn run_directory(scanner: &ScannerProcess) -> PathBuf {
    let runs = list_dir(&scanner.dir.path("parent/temp"));
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs[0].clone()
}

#[tokio::test]
async fn run_directory_that_disappeared_is_created_again() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver).await;
    let operations = scanner.operations_client().await;
    let directory = run_directory(&scanner);
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
    let parents = [scanner.dir.path("parent/temp"), scanner.dir.path("parent")];
    let modes = [mode(&directory), mode(&parents[0]), mode(&parents[1])];
    for (number, removed) in [&directory, &parents[0], &parents[1]].into_iter().enumerate() {
        fs::remove_dir_all(removed).unwrap();
        // Larger than what is kept in memory, so that the body is spooled.
        let bytes = noise(number as u64, 3 << 20);
        let media = homeserver.add_bytes(&format!("media{number}"), bytes.clone());
        let response = scanner.client.get(&format!("/download/{media}")).await;
        response.assert_media(&bytes);
        assert_eq!(run_directory(&scanner), directory);
        assert_eq!([mode(&directory), mode(&parents[0]), mode(&parents[1])], modes);
        assert_eq!(scanner.log().matches(CREATED_AGAIN).count(), number + 1);
    }
    // Without a request for media, a probe creates the directory.
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(get(&operations, "/health/ready").await.status, 200);
    assert!(directory.is_dir());
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn service_is_not_ready_while_the_run_directory_cannot_be_created() {
    let homeserver = MockHomeserver::start().await;
    let mut scanner = start(&homeserver).await;
    let operations = scanner.operations_client().await;
    let directory = run_directory(&scanner);
    let other = scanner.dir.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("file"), "kept").unwrap();
    fs::remove_dir_all(&directory).unwrap();
    symlink(&other, &directory).unwrap();

    for number in 0..3 {
        let response = get(&operations, "/health/ready").await;
        assert_eq!(response.status, 503);
        assert!(response.body.starts_with(b"the temporary directory cannot be used: "));
        let media = homeserver.add_bytes(&format!("media{number}"), noise(number, 3000));
        scanner.client.get(&format!("/scan/{media}")).await.assert_error(500, "M_UNKNOWN");
    }
    assert_eq!(scanner.log().matches(LOST).count(), 1, "logged once");
    assert_eq!(list_dir(&other), [other.join("file")], "the link is not followed");
    assert_eq!(scanner.dir.mark_count("runs"), 0);

    fs::remove_file(&directory).unwrap();
    assert_eq!(get(&operations, "/health/ready").await.status, 200);
    let media = homeserver.add_bytes("media", noise(9, 3000));
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    assert_eq!(scanner.log().matches(CREATED_AGAIN).count(), 1);
    scanner.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(scanner.wait_for_exit().await.success());
    assert!(!directory.exists() && other.join("file").exists());
}

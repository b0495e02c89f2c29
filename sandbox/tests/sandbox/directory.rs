//! The job's directory: contents, owners and modes, and protection of the media.

use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use mcs_sandbox::{Error, Layer, Termination};
use nix::unistd::geteuid;

use crate::fixture::{
    Fixture, LONG_TIMEOUT, USER, is_root, report_skipped, sh, skip_without_root, text,
};

#[tokio::test]
async fn media_has_plain_path_in_private_directory() {
    let fixture = Fixture::new();
    let job = fixture.sandbox.prepare(&fixture.jobs(), "Some_media-1.png").await.unwrap();
    let owner = if is_root() { USER.uid } else { geteuid().as_raw() };

    let path = job.media_path().to_str().unwrap();
    assert!(path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b)), "{path}");
    assert!(path.ends_with("/Some_media-1.png"));
    assert_eq!(job.media_path().parent(), Some(job.directory()));
    assert_eq!(job.directory().parent(), Some(fixture.jobs().as_path()));

    let directory = job.directory().symlink_metadata().unwrap();
    assert!(directory.is_dir());
    assert_eq!((directory.mode() & 0o7777, directory.uid()), (0o700, owner));
    let tmp = job.directory().join("tmp").symlink_metadata().unwrap();
    assert!(tmp.is_dir());
    assert_eq!((tmp.mode() & 0o7777, tmp.uid()), (0o700, owner));
    let media = job.media_path().symlink_metadata().unwrap();
    assert!(media.is_file());
    let mode = if is_root() { 0o444 } else { 0o600 };
    assert_eq!((media.mode() & 0o7777, media.uid()), (mode, geteuid().as_raw()));
    assert_eq!(job.media().unwrap().metadata().unwrap().ino(), media.ino());
    job.close().await.unwrap();
    assert!(fixture.is_empty());
}

#[tokio::test]
async fn program_reads_media_and_writes_to_directory() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    job.media().unwrap().write_all(b"content").unwrap();
    let script = r#"pwd; cat "$1"; echo log > "$1-log" && echo x > "$TMPDIR/x" && cat "$1-log""#;
    let exit = job.run(&sh(&job, script), LONG_TIMEOUT, 1000).await.unwrap();
    let expected = format!("{}\ncontentlog\n", job.directory().display());
    assert_eq!((exit.termination, text(&exit.stdout)), (Termination::Exited(0), expected.as_str()));
    job.close().await.unwrap();
    assert!(fixture.is_empty());
}

#[tokio::test]
async fn in_memory_media_uses_no_memory_beyond_its_size() {
    const NAME: &str = "in_memory_media_uses_no_memory_beyond_its_size";
    let fixture = Fixture::new();
    let sandbox = fixture.builder().probe(&fixture.jobs()).await.unwrap();
    if !sandbox.layers().is_active(Layer::Namespaces) {
        report_skipped(NAME, "namespaces are unavailable");
        return;
    }
    let job = sandbox.prepare(&fixture.jobs(), "media").await.unwrap();
    let mut media = job.media().unwrap();
    for length in [1, 100 << 10, 512 << 10, 3 << 20, 700_001] {
        media.write_all(&vec![1; length]).unwrap();
        let metadata = media.metadata().unwrap();
        let allocated = metadata.blocks() * 512;
        // The smallest page size is 64 KiB on some machines.
        let expected = metadata.len()..metadata.len() + (64 << 10);
        assert!(expected.contains(&allocated), "{allocated} bytes for {}", metadata.len());
    }
    job.close().await.unwrap();
}

const TAMPER: &str = r#"chmod 666 "$1"; echo changed > "$1"; cat "$1""#;

#[tokio::test]
async fn other_user_cannot_modify_media() {
    if skip_without_root("other_user_cannot_modify_media") {
        return;
    }
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    assert!(job.media_is_tamper_proof());
    job.media().unwrap().write_all(b"content").unwrap();
    let exit = job.run(&sh(&job, TAMPER), LONG_TIMEOUT, 1000).await.unwrap();
    assert_eq!(text(&exit.stdout), "content");

    // Programs can replace the directory entry, but not the content of the file.
    let replace = r#"rm -f "$1"; echo changed > "$1"; cat "$1""#;
    let exit = job.run(&sh(&job, replace), LONG_TIMEOUT, 1000).await.unwrap();
    assert_eq!(text(&exit.stdout), "changed\n");
    let mut media = job.take_media().unwrap();
    job.close().await.unwrap();
    let mut content = String::new();
    media.rewind().unwrap();
    media.read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
}

#[tokio::test]
async fn own_user_can_modify_media() {
    if is_root() {
        let test = "own_user_can_modify_media";
        report_skipped(test, "root always sets another user");
        return;
    }
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    assert!(!job.media_is_tamper_proof());
    let exit = job.run(&sh(&job, TAMPER), LONG_TIMEOUT, 1000).await.unwrap();
    assert_eq!(text(&exit.stdout), "changed\n");
    job.close().await.unwrap();
}

#[tokio::test]
async fn rejects_unsafe_names() {
    let fixture = Fixture::new();
    let long = "a".repeat(256);
    for name in ["", ".", "..", ".hidden", "-rf", "a b", "a/b", "a\nb", "$(id)", "tmp", "ä", &long]
    {
        let result = fixture.sandbox.prepare(&fixture.jobs(), name).await;
        assert!(matches!(result, Err(Error::Argument(_))), "{name:?}: {result:?}");
    }
    for parent in ["", "relative", "/with space"] {
        let result = fixture.sandbox.prepare(Path::new(parent), "media").await;
        assert!(matches!(result, Err(Error::Argument(_))), "{parent:?}: {result:?}");
    }
    assert!(fixture.is_empty());
}

#[tokio::test]
async fn missing_parent_fails_directory_step() {
    let fixture = Fixture::new();
    let result = fixture.sandbox.prepare(&fixture.root.join("missing"), "media").await;
    let step = mcs_sandbox::Step::Directory;
    assert!(matches!(&result, Err(Error::NotStarted { step: s, .. }) if *s == step), "{result:?}");
}

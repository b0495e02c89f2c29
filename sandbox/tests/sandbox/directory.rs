//! The job's directory while there is one: its shape, its owners, and who can change the media.

use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use mcs_sandbox::{Error, Layer, Outcome};
use nix::unistd::geteuid;

use crate::place::{AMPLE, Place, USER, is_root, sh, skipped, skipped_without_root, text};

#[tokio::test]
async fn the_media_lies_at_a_plain_path_in_a_private_directory() {
    let place = Place::new();
    let job = place.sandbox.prepare(&place.jobs(), "Some_media-1.png").await.unwrap();
    let owner = if is_root() { USER.uid } else { geteuid().as_raw() };

    let path = job.media_path().to_str().unwrap();
    assert!(path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b)), "{path}");
    assert!(path.ends_with("/Some_media-1.png"));
    assert_eq!(job.media_path().parent(), Some(job.directory()));
    assert_eq!(job.directory().parent(), Some(place.jobs().as_path()));

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
    assert!(place.is_empty());
}

#[tokio::test]
async fn a_program_reads_the_media_and_writes_beside_it() {
    let place = Place::new();
    let mut job = place.job().await;
    job.media().unwrap().write_all(b"content").unwrap();
    let script = r#"pwd; cat "$1"; echo log > "$1-log" && echo x > "$TMPDIR/x" && cat "$1-log""#;
    let exit = job.run(&sh(&job, script), AMPLE, 1000).await.unwrap();
    let expected = format!("{}\ncontentlog\n", job.directory().display());
    assert_eq!((exit.outcome, text(&exit.stdout)), (Outcome::Exited(0), expected.as_str()));
    job.close().await.unwrap();
    assert!(place.is_empty());
}

#[tokio::test]
async fn in_memory_a_media_takes_what_it_is_long_however_large_the_pages_are() {
    const NAME: &str = "in_memory_a_media_takes_what_it_is_long_however_large_the_pages_are";
    let place = Place::new();
    let sandbox = place.candidate().settle(&place.jobs()).await.unwrap();
    if !sandbox.layers().holds(Layer::Namespaces) {
        skipped(NAME, "there are no namespaces");
        return;
    }
    let job = sandbox.prepare(&place.jobs(), "media").await.unwrap();
    let mut media = job.media().unwrap();
    for length in [1, 100 << 10, 512 << 10, 3 << 20, 700_001] {
        media.write_all(&vec![1; length]).unwrap();
        let metadata = media.metadata().unwrap();
        let taken = metadata.blocks() * 512;
        // The smallest pages are of 64 KiB on some machines.
        let allowed = metadata.len()..metadata.len() + (64 << 10);
        assert!(allowed.contains(&taken), "{taken} bytes for {}", metadata.len());
    }
    job.close().await.unwrap();
}

const TAMPER: &str = r#"chmod 666 "$1"; echo changed > "$1"; cat "$1""#;

#[tokio::test]
async fn a_program_of_another_user_cannot_change_the_media() {
    if skipped_without_root("a_program_of_another_user_cannot_change_the_media") {
        return;
    }
    let place = Place::new();
    let mut job = place.job().await;
    assert!(job.media_is_tamper_proof());
    job.media().unwrap().write_all(b"content").unwrap();
    let exit = job.run(&sh(&job, TAMPER), AMPLE, 1000).await.unwrap();
    assert_eq!(text(&exit.stdout), "content");

    // The name is the program's, the file is not.
    let replace = r#"rm -f "$1"; echo changed > "$1"; cat "$1""#;
    let exit = job.run(&sh(&job, replace), AMPLE, 1000).await.unwrap();
    assert_eq!(text(&exit.stdout), "changed\n");
    let mut media = job.take_media().unwrap();
    job.close().await.unwrap();
    let mut content = String::new();
    media.rewind().unwrap();
    media.read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
}

#[tokio::test]
async fn a_program_of_the_servers_own_user_can_change_the_media_and_the_job_says_so() {
    if is_root() {
        let test = "a_program_of_the_servers_own_user_can_change_the_media";
        skipped(test, "root always names another user");
        return;
    }
    let place = Place::new();
    let mut job = place.job().await;
    assert!(!job.media_is_tamper_proof());
    let exit = job.run(&sh(&job, TAMPER), AMPLE, 1000).await.unwrap();
    assert_eq!(text(&exit.stdout), "changed\n");
    job.close().await.unwrap();
}

#[tokio::test]
async fn names_that_a_shell_could_read_otherwise_are_refused() {
    let place = Place::new();
    let long = "a".repeat(256);
    for name in ["", ".", "..", ".hidden", "-rf", "a b", "a/b", "a\nb", "$(id)", "tmp", "ä", &long]
    {
        let refused = place.sandbox.prepare(&place.jobs(), name).await;
        assert!(matches!(refused, Err(Error::Argument(_))), "{name:?}: {refused:?}");
    }
    for parent in ["", "relative", "/with space"] {
        let refused = place.sandbox.prepare(Path::new(parent), "media").await;
        assert!(matches!(refused, Err(Error::Argument(_))), "{parent:?}: {refused:?}");
    }
    assert!(place.is_empty());
}

#[tokio::test]
async fn a_parent_that_is_not_there_is_an_error_of_that_step() {
    let place = Place::new();
    let refused = place.sandbox.prepare(&place.root.join("missing"), "media").await;
    let step = mcs_sandbox::Step::Directory;
    assert!(
        matches!(&refused, Err(Error::NotStarted { step: s, .. }) if *s == step),
        "{refused:?}"
    );
}

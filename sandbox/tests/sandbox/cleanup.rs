//! Nothing of a job outlives it: no process that this layer can reach, no file. And nothing outside is touched.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use mcs_sandbox::{Outcome, remove_tree};
use nix::sys::stat::{Mode, mkdirat};

use crate::place::{AMPLE, Place, is_root, sh, sh_with, skipped, text, until};

#[tokio::test]
async fn a_child_that_forked_twice_and_left_the_session_is_gone_at_the_end() {
    let place = Place::new();
    let mut witness = place.witness();
    let mut job = place.job().await;
    let script = r#"exec 3> "$2"
        trap '' TERM HUP
        setsid sh -c 'trap "" TERM HUP; (setsid sh -c "echo away >&3; sleep 60; sleep 60" & sleep 60) & exec sleep 60' &
        read -r line < "$1-go"; exit 6"#;
    // The program ends after its child is away, which this test is told of by the witness.
    let go = format!("{}-go", job.media_path().display());
    nix::unistd::mkfifo(go.as_str(), Mode::S_IRWXU).unwrap();
    fs::set_permissions(&go, fs::Permissions::from_mode(0o644)).unwrap();
    let command = sh_with(&job, script, &witness.path);
    let (exit, ()) = tokio::join!(job.run(&command, AMPLE, 100), async {
        assert_eq!(witness.line().await, "away");
        tokio::task::spawn_blocking(move || fs::write(go, "go\n")).await.unwrap().unwrap();
    });
    assert_eq!(exit.unwrap().outcome, Outcome::Exited(6));
    witness.is_gone().await;
    job.close().await.unwrap();
    assert!(place.is_empty());
}

#[tokio::test]
async fn whatever_a_program_left_in_its_directory_is_removed() {
    let place = Place::new();
    let outside = place.root.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(outside.join("file"), "stays").unwrap();
    fs::set_permissions(outside.join("file"), fs::Permissions::from_mode(0o666)).unwrap();

    let mut job = place.job().await;
    let script = r#"
        ln -s "$2" link; ln -s "$2/file" tmp/link; ln -s / root; ln -s . itself
        mkfifo fifo; printf x > .1; mkdir .2; printf x > .2/x
        i=0; deep=; while [ $i -lt 300 ]; do deep=$deep/d; i=$((i+1)); done; mkdir -p ".$deep"; ln -s "$2" ".$deep/link"
        mkdir many; cd many; seq 10000 | xargs touch; cd ..
        mkdir -p locked/inner/most; printf x > locked/inner/most/x; chmod 0 locked/inner/most locked/inner locked
        chmod 0 tmp .
        exit 0"#;
    let exit = job.run(&sh_with(&job, script, &outside), AMPLE, 1000).await.unwrap();
    assert_eq!((exit.outcome, text(&exit.stderr)), (Outcome::Exited(0), ""));
    let directory = job.directory().to_owned();
    if is_root() {
        assert_eq!(fs::read_dir(directory.join("many")).unwrap().count(), 10_000);
    }
    job.close().await.unwrap();
    assert!(!directory.exists() && place.is_empty());
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "stays");
}

#[tokio::test]
async fn closing_waits_for_the_helper_and_reaps_it() {
    let place = Place::new();
    let mut job = place.job().await;
    let exit = job.run(&sh(&job, "echo $PPID"), AMPLE, 100).await.unwrap();
    let helper = format!("/proc/{}", text(&exit.stdout).trim());
    assert!(fs::exists(&helper).unwrap(), "the control");
    job.close().await.unwrap();
    assert!(!fs::exists(&helper).unwrap());
}

#[tokio::test]
async fn a_job_that_is_dropped_ends_by_itself() {
    let place = Place::new();
    let mut job = place.job().await;
    let exit = job.run(&sh(&job, "echo $PPID"), AMPLE, 100).await.unwrap();
    let helper = format!("/proc/{}", text(&exit.stdout).trim());
    drop(job);
    until("the helper is reaped", || !fs::exists(&helper).unwrap()).await;
    place.becomes_empty().await;
}

#[tokio::test]
async fn a_run_that_is_dropped_leaves_nothing() {
    let place = Place::new();
    let mut witness = place.witness();
    let mut job = place.job().await;
    let script = r#"exec 3> "$2"; echo on >&3; sleep 60"#;
    let command = sh_with(&job, script, &witness.path);
    tokio::select! {
        exit = job.run(&command, AMPLE, 100) => panic!("{exit:?}"),
        line = witness.line() => assert_eq!(line, "on"),
    }
    // The job itself is still here.
    witness.is_gone().await;
    place.becomes_empty().await;
    let over = job.run(&command, AMPLE, 100).await;
    assert!(matches!(over, Err(mcs_sandbox::Error::Over)), "{over:?}");
    job.close().await.unwrap();
}

#[tokio::test]
async fn a_preparation_that_is_dropped_at_any_time_leaves_nothing() {
    let place = Place::new();
    for step in 0..60 {
        let patience = std::time::Duration::from_micros(step * 50);
        let _ = tokio::time::timeout(patience, place.sandbox.prepare(&place.jobs(), "media")).await;
    }
    place.becomes_empty().await;
}

#[test]
fn a_runtime_that_ends_with_a_job_in_it_leaves_nothing() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let job = runtime.block_on(place.job());
    runtime.shutdown_background();
    drop(job);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(place.becomes_empty());
}

#[test]
fn a_tree_deeper_than_any_path_is_removed() {
    let place = Place::new();
    let top = place.root.join("deep");
    fs::create_dir(&top).unwrap();
    let mut level: std::os::fd::OwnedFd = fs::File::open(&top).unwrap().into();
    for _ in 0..5000 {
        mkdirat(&level, "directory", Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC;
        level = nix::fcntl::openat(&level, "directory", flags, Mode::empty()).unwrap();
    }
    drop(level);
    remove_tree(&top).unwrap();
    assert!(!top.exists());
}

#[test]
fn a_link_is_removed_and_not_what_it_leads_to() {
    let place = Place::new();
    let (target, link) = (place.root.join("target"), place.root.join("link"));
    fs::create_dir(&target).unwrap();
    fs::write(target.join("file"), "stays").unwrap();
    symlink(&target, &link).unwrap();
    remove_tree(&link).unwrap();
    assert!(!link.exists() && target.join("file").exists());
}

#[test]
fn a_tree_that_is_not_there_is_removed_already() {
    let place = Place::new();
    remove_tree(&place.root.join("missing")).unwrap();
    remove_tree(&place.root.join("missing/below")).unwrap();
    remove_tree(std::path::Path::new("/")).unwrap_err();
}

#[test]
fn what_cannot_be_removed_is_an_error_and_the_rest_is_gone() {
    let place = Place::new();
    if is_root() {
        let test = "what_cannot_be_removed_is_an_error_and_the_rest_is_gone";
        skipped(test, "root removes everything");
        return;
    }
    // Another user's directory cannot be made here; so the parent is one that cannot be written.
    let parent = place.root.join("parent");
    fs::create_dir_all(parent.join("top/below")).unwrap();
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o500)).unwrap();
    remove_tree(&parent.join("top")).unwrap_err();
    assert!(!parent.join("top/below").exists());
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o700)).unwrap();
}

//! Nothing of a job outlives it: no process that the base layer can find and no file. Nothing outside the job is
//! removed.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use mcs_sandbox::{Termination, remove_tree};
use nix::sys::stat::{Mode, mkdirat};

use crate::fixture::{
    Fixture, LONG_TIMEOUT, is_root, report_skipped, sh, sh_with, text, wait_until,
};

#[tokio::test]
async fn kills_double_forked_child_in_new_session() {
    let fixture = Fixture::new();
    let mut fifo = fixture.fifo();
    let mut job = fixture.job().await;
    let script = r#"exec 3> "$2"
        trap '' TERM HUP
        setsid sh -c 'trap "" TERM HUP; (setsid sh -c "echo away >&3; sleep 60; sleep 60" & sleep 60) & exec sleep 60' &
        read -r line < "$1-go"; exit 6"#;
    // The program exits only after its child is detached, which the FIFO shows.
    let go = format!("{}-go", job.media_path().display());
    nix::unistd::mkfifo(go.as_str(), Mode::S_IRWXU).unwrap();
    fs::set_permissions(&go, fs::Permissions::from_mode(0o644)).unwrap();
    let command = sh_with(&job, script, &fifo.path);
    let (exit, ()) = tokio::join!(job.run(&command, LONG_TIMEOUT, 100), async {
        assert_eq!(fifo.read_line().await, "away");
        tokio::task::spawn_blocking(move || fs::write(go, "go\n")).await.unwrap().unwrap();
    });
    assert_eq!(exit.unwrap().termination, Termination::Exited(6));
    fifo.wait_closed().await;
    job.close().await.unwrap();
    assert!(fixture.is_empty());
}

#[tokio::test]
async fn removes_hostile_directory_content() {
    let fixture = Fixture::new();
    let outside = fixture.root.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(outside.join("file"), "stays").unwrap();
    fs::set_permissions(outside.join("file"), fs::Permissions::from_mode(0o666)).unwrap();

    let mut job = fixture.job().await;
    let script = r#"
        ln -s "$2" link; ln -s "$2/file" tmp/link; ln -s / root; ln -s . itself
        mkfifo fifo; printf x > .1; mkdir .2; printf x > .2/x
        i=0; deep=; while [ $i -lt 300 ]; do deep=$deep/d; i=$((i+1)); done; mkdir -p ".$deep"; ln -s "$2" ".$deep/link"
        mkdir many; cd many; seq 10000 | xargs touch; cd ..
        mkdir -p locked/inner/most; printf x > locked/inner/most/x; chmod 0 locked/inner/most locked/inner locked
        chmod 0 tmp .
        exit 0"#;
    let exit = job.run(&sh_with(&job, script, &outside), LONG_TIMEOUT, 1000).await.unwrap();
    assert_eq!((exit.termination, text(&exit.stderr)), (Termination::Exited(0), ""));
    let directory = job.directory().to_owned();
    if is_root() {
        assert_eq!(fs::read_dir(directory.join("many")).unwrap().count(), 10_000);
    }
    job.close().await.unwrap();
    assert!(!directory.exists() && fixture.is_empty());
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "stays");
}

#[tokio::test]
async fn close_reaps_helper() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    let exit = job.run(&sh(&job, "echo $PPID"), LONG_TIMEOUT, 100).await.unwrap();
    let helper = format!("/proc/{}", text(&exit.stdout).trim());
    assert!(fs::exists(&helper).unwrap(), "control");
    job.close().await.unwrap();
    assert!(!fs::exists(&helper).unwrap());
}

#[tokio::test]
async fn dropped_job_ends_in_background() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    let exit = job.run(&sh(&job, "echo $PPID"), LONG_TIMEOUT, 100).await.unwrap();
    let helper = format!("/proc/{}", text(&exit.stdout).trim());
    drop(job);
    wait_until("the helper is reaped", || !fs::exists(&helper).unwrap()).await;
    fixture.wait_until_empty().await;
}

#[tokio::test]
async fn dropped_run_leaves_nothing() {
    let fixture = Fixture::new();
    let mut fifo = fixture.fifo();
    let mut job = fixture.job().await;
    let script = r#"exec 3> "$2"; echo on >&3; sleep 60"#;
    let command = sh_with(&job, script, &fifo.path);
    tokio::select! {
        exit = job.run(&command, LONG_TIMEOUT, 100) => panic!("{exit:?}"),
        line = fifo.read_line() => assert_eq!(line, "on"),
    }
    // The job still exists.
    fifo.wait_closed().await;
    fixture.wait_until_empty().await;
    let result = job.run(&command, LONG_TIMEOUT, 100).await;
    assert!(matches!(result, Err(mcs_sandbox::Error::JobEnded)), "{result:?}");
    job.close().await.unwrap();
}

#[tokio::test]
async fn cancelled_preparation_leaves_nothing() {
    let fixture = Fixture::new();
    for step in 0..60 {
        let time_limit = std::time::Duration::from_micros(step * 50);
        let _ = tokio::time::timeout(time_limit, fixture.sandbox.prepare(&fixture.jobs(), "media"))
            .await;
    }
    fixture.wait_until_empty().await;
}

#[test]
fn runtime_shutdown_leaves_nothing() {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let job = runtime.block_on(fixture.job());
    runtime.shutdown_background();
    drop(job);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(fixture.wait_until_empty());
}

#[test]
fn removes_tree_deeper_than_path_max() {
    let fixture = Fixture::new();
    let top = fixture.root.join("deep");
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
fn removes_link_without_following_it() {
    let fixture = Fixture::new();
    let (target, link) = (fixture.root.join("target"), fixture.root.join("link"));
    fs::create_dir(&target).unwrap();
    fs::write(target.join("file"), "stays").unwrap();
    symlink(&target, &link).unwrap();
    remove_tree(&link).unwrap();
    assert!(!link.exists() && target.join("file").exists());
}

#[test]
fn missing_tree_is_not_an_error() {
    let fixture = Fixture::new();
    remove_tree(&fixture.root.join("missing")).unwrap();
    remove_tree(&fixture.root.join("missing/below")).unwrap();
    remove_tree(std::path::Path::new("/")).unwrap_err();
}

#[test]
fn removes_rest_if_top_is_not_removable() {
    let fixture = Fixture::new();
    if is_root() {
        let test = "removes_rest_if_top_is_not_removable";
        report_skipped(test, "root can remove everything");
        return;
    }
    // The test cannot create files of another user, so the top directory's parent is read-only instead.
    let parent = fixture.root.join("parent");
    fs::create_dir_all(parent.join("top/below")).unwrap();
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o500)).unwrap();
    remove_tree(&parent.join("top")).unwrap_err();
    assert!(!parent.join("top/below").exists());
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o700)).unwrap();
}

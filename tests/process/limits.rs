//! Lack of descriptors and of processes: at the start an error of the configuration, later overload.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixSocket, UnixStream},
};

use crate::{
    exhaustion::{assert_overloaded, set_soft_limit, take_descriptors},
    harness::{
        MockHomeserver, ScannerBuilder, ScannerProcess, TestClient, png, report_skipped,
        scanner::is_root,
    },
};

#[test]
fn too_few_descriptors_at_the_start_are_a_configuration_error() {
    let builder = ScannerBuilder::new("exit 0").config("web.max_connections = 300");
    let config = "scan.workers = 2\nscan.max_scripts = 1";
    let builder = builder.config(config).wrapped_by(&["prlimit", "--nofile=459"]);
    let (code, output) = builder.run_to_exit();
    assert_eq!(code, Some(78), "{output}");
    let text = "the limit of open files is 459, but web.max_connections = 300 and scan.workers = 2 need 460";
    assert!(output.contains(text), "{output}");
}

#[test]
fn too_few_processes_at_the_start_are_a_configuration_error() {
    if !is_root() {
        return report_skipped("too_few_processes", "only root can become an unused user");
    }
    // The kernel does not apply the limit to root.
    let user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];
    let wrapper = [&["prlimit", "--nproc=1"], &user[..]].concat();
    let builder = ScannerBuilder::new("exit 0").wrapped_by(&wrapper);
    chown(builder.dir().path("temp"), Some(54321), Some(54321)).unwrap();
    let (code, output) = builder.run_to_exit();
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("cannot start") && output.contains("TasksMax="), "{output}");
    assert!(!output.contains("panicked"), "{output}");
}

/// Control group with a limit of tasks in the tree of the machine; removed on drop.
struct TasksGroup(PathBuf);

impl TasksGroup {
    /// Creates the group, or reports the test as skipped.
    fn new(test: &str, max: u32) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let trees = mounts.lines().filter(|line| {
            let kind = line.split_once(" - ").map_or("", |(_, kind)| kind);
            let options = kind.rsplit(' ').next().unwrap_or_default();
            kind.starts_with("cgroup2 ")
                || kind.starts_with("cgroup ") && options.split(',').any(|name| name == "pids")
        });
        let created = trees.filter(|_| is_root()).find_map(|line| {
            let tree = Path::new(line.split(' ').nth(4)?);
            // Exists in version 2 only, and fails without the controller.
            let control = tree.join("cgroup.subtree_control");
            if control.exists() {
                fs::write(control, "+pids").ok()?;
            }
            let group = Self(tree.join(format!("mcs-tasks-{max}-{}", std::process::id())));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join("pids.max"), max.to_string()).ok().map(|()| group)
        });
        if created.is_none() {
            report_skipped(
                test,
                "needs root and a writable control group with the controller pids",
            );
        }
        created
    }

    /// Returns a command that enters the group and executes its arguments.
    fn wrapper(&self) -> [&str; 5] {
        let enter = r#"echo $$ > "$1/cgroup.procs" || exit 1; shift; exec "$@""#;
        ["/bin/sh", "-c", enter, "sh", self.0.to_str().unwrap()]
    }
}

impl Drop for TasksGroup {
    fn drop(&mut self) {
        let removed = fs::remove_dir(&self.0);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

/// The first limit leaves too little for the scripts, the second one is too low for the service's own threads.
#[test]
fn too_few_tasks_of_the_control_group_are_a_configuration_error() {
    for (max, expected) in [
        (600, "permits 600 tasks (pids.max, TasksMax=), too few for 33 programs and 512 others"),
        (2, "TasksMax="),
    ] {
        let Some(group) = TasksGroup::new("too_few_tasks", max) else { return };
        let builder = ScannerBuilder::new("exit 0").config("scan.max_scripts = 16");
        let (code, output) = builder.wrapped_by(&group.wrapper()).run_to_exit();
        assert_eq!(code, Some(78), "{output}");
        assert!(output.contains(expected), "{output}");
        assert!(!output.contains("panicked"), "{output}");
    }
}

#[tokio::test]
async fn lack_of_descriptors_is_overload_and_passes() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, r#"echo run >> "$MARKS/runs""#).await;
    let media = homeserver.add_bytes("one", png());
    // Opens the connection that the next requests use.
    scanner.client.public_key().await;
    let limit = take_descriptors(scanner.pid(), 0);
    for path in [format!("/download/{media}"), format!("/scan/{media}")] {
        let response = scanner.client.get(&path).await;
        assert_overloaded(&response);
    }
    // A new connection waits until it can be accepted.
    let address = scanner.address.clone();
    let waiting = tokio::spawn(async move { TestClient::new(&address).public_key().await });
    scanner.wait_for_log("cannot accept connections", 1).await;
    set_soft_limit(scanner.pid(), "nofile", &limit);
    assert!(!waiting.await.unwrap().is_empty());
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    assert_eq!(scanner.dir.mark_count("runs"), 1);
}

/// Opens connections that nothing accepts, until the backlog of the socket is full.
async fn fill_backlog(path: &Path) -> Vec<UnixStream> {
    let mut waiting = Vec::new();
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(nix::libc::EAGAIN));
                return waiting;
            }
        }
    }
}

/// Accepts connections and responds like clamd: with its version, or "OK" for any file.
async fn respond_like_clamd(listener: &UnixListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Either "zVERSION\0", or "zFILDES\0" and a byte with the descriptor.
        let mut request = [0; 9];
        if stream.read_exact(&mut request).await.is_ok() {
            let version = b"ClamAV 1.4.3/27000/Mon Nov 23 10:00:00 2026\0".as_slice();
            let response = if request == *b"zVERSION\0" { version } else { b"fd[9]: OK\0" };
            stream.write_all(response).await.unwrap();
        }
    }
}

#[tokio::test]
async fn full_backlog_of_clamd_is_overload_of_clamd_and_passes() {
    let homeserver = MockHomeserver::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("clamd.ctl");
    let socket = UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let listener = Arc::new(socket.listen(1).unwrap());
    let accept = || {
        let listener = Arc::clone(&listener);
        tokio::spawn(async move { respond_like_clamd(&listener).await })
    };
    let accepting = accept();
    let config = format!(
        "scan.engines = [\"clamd\"]\nclamd.addresses = [{path:?}]\nscan.canary = \"off\"\n\
         scan.version_interval = \"1h\"\nresult_cache.failure_ttl = \"1h\""
    );
    let scanner = ScannerBuilder::new("").homeserver(&homeserver).config(&config).start().await;
    let media = homeserver.add_bytes("one", png());
    accepting.abort();
    assert!(accepting.await.unwrap_err().is_cancelled());
    let waiting = fill_backlog(&path).await;
    for path in [format!("/download/{media}"), format!("/scan/{media}")] {
        let response = scanner.client.get(&path).await;
        assert_overloaded(&response);
        assert_eq!(response.json()["info"], "A scan engine is busy");
    }
    let log = scanner.log();
    let cause = "the engine clamd failed: too many connections wait for the engine to accept them";
    assert!(log.contains(cause), "{log}");
    assert!(!log.contains("engine unavailable"), "{log}");
    // The failure is not cached: the next request is scanned as soon as clamd accepts.
    drop(waiting);
    let accepting = accept();
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    accepting.abort();
}

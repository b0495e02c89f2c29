//! Tests with a delegated control group, marked by an extended attribute as systemd does.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::harness::{
    MockHomeserver, ScannerBuilder, report_skipped,
    scanner::{is_root, list_dir},
    wait_until,
};

/// Control group in the tree of the machine; removed on drop together with the groups that the server created.
struct TestCgroup(PathBuf);

impl Drop for TestCgroup {
    fn drop(&mut self) {
        for name in ["server", "jobs", ""] {
            let mut removed = fs::remove_dir(self.0.join(name));
            // A process leaves its group some time after its end.
            for _ in 0..500 {
                if removed.as_ref().err().map(io::Error::kind) != Some(io::ErrorKind::ResourceBusy)
                {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
                removed = fs::remove_dir(self.0.join(name));
            }
            assert!(removed.is_ok() || thread::panicking(), "{name}: {removed:?}");
        }
    }
}

fn create_delegated_cgroup(test: &str) -> Option<TestCgroup> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let tree = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let tree = tree.and_then(|line| line.split(' ').nth(4)).filter(|_| is_root());
    let python = Path::new("/usr/bin/python3").exists();
    let Some(tree) = tree.filter(|_| python) else {
        report_skipped(test, "needs root, a cgroup v2 tree and python3");
        return None;
    };
    let group = TestCgroup(Path::new(tree).join(format!("mcs-test-{}", std::process::id())));
    for name in ["", "server", "jobs", "jobs/job-of-a-killed-server"] {
        fs::create_dir(group.0.join(name)).unwrap();
    }
    Some(group)
}

#[tokio::test]
async fn service_uses_delegated_cgroup() {
    let test = "service_uses_delegated_cgroup";
    let Some(group) = create_delegated_cgroup(test) else { return };
    let path = group.0.to_str().unwrap();
    // Enters the group and marks it as systemd would. The server then detects the delegation.
    let enter = "import os, sys\n\
        open(sys.argv[1] + '/cgroup.procs', 'w').write('0')\n\
        os.setxattr(sys.argv[1], 'trusted.delegate', b'1')\n\
        os.execv(sys.argv[2], sys.argv[2:])";
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("clean", "clean");
    let mut scanner = ScannerBuilder::new("cat /proc/self/cgroup 2>/dev/null; exit 0")
        .homeserver(&homeserver)
        .config("sandbox.mode = \"strict\"\nsandbox.require = [\"cgroup\"]")
        .wrapped_by(&["/usr/bin/python3", "-c", enter, path])
        .start()
        .await;
    let server = fs::read_to_string(group.0.join("server/cgroup.procs")).unwrap();
    assert_eq!(server.trim(), scanner.pid().to_string());
    assert!(scanner.log().contains("; cgroup: kill; not delegated: "), "{}", scanner.log());
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    scanner.wait_until_idle().await;
    let is_dir = |path: &PathBuf| path.is_dir();
    let remaining = || list_dir(&group.0.join("jobs")).into_iter().filter(is_dir).count();
    wait_until("no group but that of the evaluator remains", || remaining() == 1).await;
    scanner.signal(Signal::SIGTERM);
    assert!(scanner.wait_for_exit().await.success());
}

#[test]
fn commands_do_not_enter_delegated_cgroup() {
    let builder = ScannerBuilder::new("exit 0")
        .config("sandbox.mode = \"strict\"\nsandbox.require = [\"cgroup\"]");
    let (code, stdout, stderr) = builder.run(&["check-config", "--show"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains("cgroup: OFF: only the running service enters the one delegated to it"),
        "{stdout}"
    );
}

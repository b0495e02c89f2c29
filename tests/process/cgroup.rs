//! A control group that is delegated, as systemd does it: an attribute says so.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;

use crate::harness::{
    Builder, Homeserver,
    scanner::{as_root, entries},
    skipped,
};

/// A group of the machine's tree; removed with what the server has made in it.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        for name in ["server", "jobs", ""] {
            let removed = fs::remove_dir(self.0.join(name));
            assert!(removed.is_ok() || std::thread::panicking(), "{name}: {removed:?}");
        }
    }
}

fn delegated(test: &str) -> Option<Group> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let tree = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let tree = tree.and_then(|line| line.split(' ').nth(4)).filter(|_| as_root());
    let python = Path::new("/usr/bin/python3").exists();
    let Some(tree) = tree.filter(|_| python) else {
        skipped(test, "needs root, a cgroup v2 tree and python3");
        return None;
    };
    let group = Group(Path::new(tree).join(format!("mcs-test-{}", std::process::id())));
    for name in ["", "server", "jobs", "jobs/job-of-a-killed-server"] {
        fs::create_dir(group.0.join(name)).unwrap();
    }
    Some(group)
}

#[tokio::test]
async fn a_service_takes_possession_of_the_group_that_is_delegated_to_it() {
    let test = "a_service_takes_possession_of_the_group_that_is_delegated_to_it";
    let Some(group) = delegated(test) else { return };
    let path = group.0.to_str().unwrap();
    // Into the group, which is then marked as systemd would: the server finds itself there.
    let enter = "import os, sys\n\
        open(sys.argv[1] + '/cgroup.procs', 'w').write('0')\n\
        os.setxattr(sys.argv[1], 'trusted.delegate', b'1')\n\
        os.execv(sys.argv[2], sys.argv[2:])";
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("clean", "clean");
    let mut scanner = Builder::new("cat /proc/self/cgroup 2>/dev/null; exit 0")
        .homeserver(&homeserver)
        .config("sandbox.mode = \"strict\"\nsandbox.require = [\"cgroup\"]")
        .inside(&["/usr/bin/python3", "-c", enter, path])
        .start()
        .await;
    let server = fs::read_to_string(group.0.join("server/cgroup.procs")).unwrap();
    assert_eq!(server.trim(), scanner.pid().to_string());
    assert!(scanner.log().contains("; cgroup: kill; not delegated: "), "{}", scanner.log());
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    scanner.idle().await;
    let is_group = |path: &PathBuf| path.is_dir();
    let left = || entries(&group.0.join("jobs")).into_iter().filter(is_group).count();
    assert_eq!(left(), 0, "of the killed server, or of this one");
    scanner.signal(Signal::SIGTERM);
    assert!(scanner.ended().await.success());
}

#[test]
fn a_command_leaves_the_group_alone() {
    let builder =
        Builder::new("exit 0").config("sandbox.mode = \"strict\"\nsandbox.require = [\"cgroup\"]");
    let (code, stdout, stderr) = builder.run(&["check-config"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains("cgroup: OFF: only the running service enters the one delegated to it"),
        "{stdout}"
    );
}

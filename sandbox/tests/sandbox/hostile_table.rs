//! Runs every attack under every plan and compares the results with the table in `sandbox/README.md`. `UPDATE_TABLE=1`
//! rewrites the table from the expectations below.

use std::fmt::Write as _;

use crate::fixture::{ProcessFifo, is_root, report_skipped};
use crate::hostile::floods::FLOODS;
use crate::hostile::{PLANS, Targets, fresh_name, has_scopes, leak, program, skip_without_layers};
use crate::resident;

/// Expected results under the four plans: `x` succeeds; `h` is blocked; `s` is blocked from Linux 6.12 on, by Landlock
/// scopes; `v` depends on the machine (a gap that newer kernels close, or a control that some machines deny); `-` is
/// not tried.
struct Row {
    attack: &'static str,
    words: fn(&Targets) -> Vec<String>,
    root: &'static str,
    user: &'static str,
}

macro_rules! row {
    ($attack:literal, $root:literal, $user:literal, |$targets:ident| [$($word:expr),+]) => {
        Row { attack: $attack, root: $root, user: $user, words: |$targets: &Targets| {
            let _ = $targets;
            vec![$($word.to_string()),+]
        } }
    };
}

fn rows() -> Vec<Row> {
    [file_rows(), network_rows(), process_rows(), kernel_rows(), shared_rows(), resource_rows()]
        .into_iter()
        .flatten()
        .collect()
}

fn file_rows() -> Vec<Row> {
    vec![
        row!("read the server's key", "xhhh", "xhhh", |f| ["read", f.secret.display()]),
        row!("read the token of the service's operators", "hhhh", "xhhh", |f| [
            "read",
            f.private("token").display()
        ]),
        row!("read the verdict store", "hhhh", "xhhh", |f| ["read", f.private("store").display()]),
        row!("write to the verdict store", "hhhh", "xhhh", |f| [
            "append",
            f.private("store").display()
        ]),
        row!("lock the verdict store", "hhhh", "xhhh", |f| ["lock", f.private("store").display()]),
        row!("replace the verdict store", "hhhh", "xhhh", |f| [
            "replace",
            f.private("store").display()
        ]),
        row!("read /etc/shadow", "hhhh", "hhhh", |f| ["read", "/etc/shadow"]),
        row!("read another job's media", "xhhh", "xhhh", |f| [
            "read",
            f.other.media_path().display()
        ]),
        row!("list the jobs", "hhhh", "xhhh", |f| ["list", f.fixture.jobs().display()]),
        row!("write to /tmp", "xhhh", "xhhh", |f| ["write", format!("/tmp/{}", fresh_name())]),
        row!("write to /var/tmp", "xhhh", "xhhh", |f| [
            "write",
            format!("/var/tmp/{}", fresh_name())
        ]),
        row!("write to /usr", "hhhh", "hhhh", |f| ["write", format!("/usr/{}", fresh_name())]),
        row!("hard-link a file of its user", "hhhh", "xhhh", |f| ["link", f.secret.display()]),
        row!("change the mode of a file of its user", "hhhh", "xhhh", |f| [
            "chmod",
            f.secret.display()
        ]),
        row!("read the size of a hidden file", "xxhh", "xxhh", |f| ["stat", f.secret.display()]),
        row!("watch file accesses of other processes", "xhhh", "xhhh", |f| ["inotify", "/usr/bin"]),
        row!("write next to the server's files", "xhhh", "xhhh", |f| [
            "write",
            f.closed.join(fresh_name()).display()
        ]),
        row!("modify the media", "hhhh", "xxhh", |f| ["rewrite", "MEDIA"]),
        row!("replace the media's directory entry", "xxhh", "xxhh", |f| ["replace", "MEDIA"]),
        row!("create a device node", "hhhh", "hhhh", |f| ["mknod"]),
        row!("use an inherited descriptor of the server", "hhhh", "hhhh", |f| ["descriptors"]),
    ]
}

fn network_rows() -> Vec<Row> {
    vec![
        row!("TCP to localhost", "xhhh", "xhhh", |f| ["tcp", f.tcp.local_addr().unwrap()]),
        row!("UDP to localhost", "xhhh", "xhhh", |f| ["udp", f.udp.local_addr().unwrap()]),
        row!("UDP to port 53 (DNS)", "xhhh", "xhhh", |f| ["udp", "127.0.0.1:53"]),
        row!("TCP to 169.254.169.254", "-hhh", "-hhh", |f| ["tcp", "169.254.169.254:80"]),
        row!("netlink socket", "xhhh", "xhhh", |f| ["socket", 16, 3, 0]),
        row!("packet socket", "hhhh", "hhhh", |f| ["socket", 17, 3, 0]),
        row!("vsock socket", "vhhh", "vhhh", |f| ["socket", 40, 1, 0]),
        row!("kernel crypto socket (AF_ALG)", "vhhh", "vhhh", |f| ["socket", 38, 5, 0]),
        row!("abstract unix socket outside the job", "xshh", "xshh", |f| [
            "abstract",
            f.abstract_name
        ]),
        row!("unix socket outside the job", "xvhh", "xvhh", |f| ["connect", f.socket.display()]),
        row!("socket of the service's operators", "hhhh", "xvhh", |f| [
            "connect",
            f.private("admin.sock").display()
        ]),
        row!("datagram to a unix socket outside the job", "xvhh", "xvhh", |f| [
            "datagram",
            f.datagrams.display()
        ]),
        row!("configured unix socket (allowed)", "xxxx", "xxxx", |f| [
            "connect",
            f.configured.display()
        ]),
    ]
}

fn process_rows() -> Vec<Row> {
    vec![
        row!("/proc/SERVER/environ", "hhhh", "xhhh", |f| ["read", proc_of_server("environ")]),
        row!("/proc/SERVER/fd", "hhhh", "xhhh", |f| ["list", proc_of_server("fd")]),
        row!("/proc/SERVER/mem", "hhhh", "vhhh", |f| ["read", proc_of_server("mem")]),
        row!("/proc/SERVER/root", "hhhh", "xhhh", |f| ["read", proc_of_server("root/etc/passwd")]),
        row!("ptrace a process of its user", "vhhh", "vhhh", |f| ["ptrace", f.victim.id()]),
        row!("read memory of a process of its user", "vhhh", "vhhh", |f| [
            "process_vm_readv",
            f.victim.id()
        ]),
        row!("copy a descriptor of a process of its user", "vhhh", "vhhh", |f| [
            "pidfd_getfd",
            f.victim.id()
        ]),
        row!("attach shared memory of its user", "xhhh", "xhhh", |f| ["shmat", f.segment.0]),
        row!("signal a process of its user", "xshh", "xshh", |f| ["kill", f.victim.id()]),
        row!("signal the server", "hhhh", "xshh", |f| ["kill", std::process::id()]),
        row!("signal the server's process group", "xshh", "xshh", |f| [
            "kill",
            -nix::unistd::getpgrp().as_raw()
        ]),
        // kill(2) succeeds in any case; `Targets::end` verifies that the victim is alive.
        row!("kill all processes of its user", "-shh", "-shh", |f| ["kill-all"]),
        row!("kill its parent process", "hhhh", "xshh", |f| ["kill-parent"]),
        row!("resource limits of another process", "xhhh", "xhhh", |f| ["prlimit", f.victim.id()]),
        row!("priority of another process", "xhhh", "xhhh", |f| ["setpriority", f.victim.id()]),
        row!("CPU affinity of another process", "xhhh", "xhhh", |f| [
            "sched_setaffinity",
            f.victim.id()
        ]),
    ]
}

fn kernel_rows() -> Vec<Row> {
    vec![
        row!("unshare", "vhhh", "vhhh", |f| ["unshare"]),
        row!("setns", "hhhh", "hhhh", |f| ["setns"]),
        row!("clone with namespaces", "vhhh", "vhhh", |f| ["clone"]),
        row!("clone3", "xhhh", "xhhh", |f| ["clone3"]),
        row!("mount", "hhhh", "hhhh", |f| ["mount"]),
        row!("umount", "hhhh", "hhhh", |f| ["umount"]),
        row!("pivot_root", "hhhh", "hhhh", |f| ["pivot_root"]),
        row!("chroot", "hhhh", "hhhh", |f| ["chroot"]),
        row!("fsopen", "hhhh", "hhhh", |f| ["fsopen"]),
        row!("keyctl", "xhhh", "xhhh", |f| ["keyctl"]),
        row!("add_key", "xhhh", "xhhh", |f| ["add_key"]),
        row!("bpf", "vhhh", "vhhh", |f| ["bpf"]),
        row!("perf_event_open", "vhhh", "vhhh", |f| ["perf_event_open"]),
        row!("userfaultfd", "vhhh", "vhhh", |f| ["userfaultfd"]),
        row!("io_uring_setup", "vhhh", "vhhh", |f| ["io_uring_setup"]),
        row!("int 0x80", "vhhh", "vhhh", |f| ["int80"]),
        row!("x32", "vhhh", "vhhh", |f| ["x32"]),
        row!("unknown system call", "hhhh", "hhhh", |f| ["unknown"]),
        row!("personality", "xhhh", "xhhh", |f| ["personality"]),
        row!("/dev/tty", "hhhh", "hhhh", |f| ["read", "/dev/tty"]),
        row!("insert terminal input", "xhhh", "xhhh", |f| ["tiocsti"]),
        row!("raise its own resource limits", "hhhh", "hhhh", |f| ["raise-limits"]),
    ]
}

/// Effects on other jobs and on the machine through what all processes share.
fn shared_rows() -> Vec<Row> {
    vec![
        row!("lease on a file (delays open by others)", "xhhh", "xhhh", |f| ["shared", "lease"]),
        row!("watch a directory by dnotify", "vhhh", "vhhh", |f| ["shared", "dnotify"]),
        row!("exclusive lock (flock) on a shared file", "xhhh", "xhhh", |f| [
            "shared",
            "flock",
            program().display()
        ]),
        row!("exclusive lock (flock) on its own file", "xhhh", "xhhh", |f| [
            "shared", "flock", "tmp/own"
        ]),
        row!("record lock (fcntl) on its own file (allowed)", "xxxx", "xxxx", |f| [
            "shared",
            "record-lock",
            "tmp/own"
        ]),
        row!("drop a shared file from memory", "xhhh", "xhhh", |f| [
            "shared",
            "fadvise",
            program().display()
        ]),
        row!("query which part of a shared file is in memory", "vhhh", "vhhh", |f| [
            "shared",
            "cachestat",
            program().display()
        ]),
        row!("write all file systems to disk (sync)", "-hhh", "-hhh", |f| ["shared", "sync"]),
        row!("write a file system to disk (syncfs)", "xhhh", "xhhh", |f| ["shared", "syncfs"]),
        row!("user and cgroup of another process by pidfd", "vhhh", "vhhh", |f| [
            "shared",
            "pidfd-info",
            f.victim.id()
        ]),
        row!("read the host name", "xxhh", "xxhh", |f| ["shared", "host-name"]),
        row!("1,000 queued signals", "hhhh", "hhhh", |f| ["shared", "signals"]),
        row!("POSIX message queue", "hhhh", "hhhh", |f| ["shared", "message-queue"]),
        row!("1 MiB of locked memory", "hhhh", "hhhh", |f| ["shared", "locked-memory"]),
        row!("System V shared memory", "xhhh", "xhhh", |f| ["shared", "segment"]),
        row!("pipe of 1 MiB", "xhhh", "xhhh", |f| ["shared", "pipe"]),
        row!("100 KiB of kernel memory in a unix socket pair", "xxxx", "xxxx", |f| [
            "shared",
            "socket-buffer"
        ]),
        row!("epoll watches of one process (see below)", "xxxx", "xxxx", |f| ["shared", "epoll"]),
    ]
}

/// Unbounded attacks are not tried on the base layer.
fn resource_rows() -> Vec<Row> {
    vec![
        row!("fork bomb", "hhhh", "hhhh", |f| ["limit", "processes"]),
        row!("exhaust memory in one process", "hhhh", "hhhh", |f| ["limit", "memory"]),
        row!("fill the disk with one file", "xxhh", "xxhh", |f| ["limit", "disk"]),
        row!("fill the disk with many files", "xxhh", "xxhh", |f| ["limit", "disk-many-files"]),
        row!("create 70,000 files", "--hh", "--hh", |f| ["limit", "files"]),
        row!("exhaust descriptors", "hhhh", "hhhh", |f| ["limit", "descriptors"]),
    ]
}

fn proc_of_server(file: &str) -> String {
    format!("/proc/{}/{file}", std::process::id())
}

fn cell_text(expected: char) -> &'static str {
    match expected {
        'x' => "**succeeds**",
        'h' => "blocked",
        's' => "blocked from Linux 6.12",
        'v' => "depends",
        _ => "",
    }
}

/// Attacks that must not leave processes behind: attack, method, and plans under which it is tried.
const LEFT_BEHIND: [(&str, &str, &str); 2] = [
    ("outlive the job: double fork, new session", "asleep", "hhhh"),
    ("outlive the job: continuous forking", "churning", "-hhh"),
];

async fn check_attacks(test: &str, index: usize) {
    let (_, layers) = PLANS.into_iter().nth(index).unwrap();
    if skip_without_layers(layers, test).await {
        return;
    }
    let scopes = has_scopes().await;
    let _leak = leak();
    let mut mismatches = String::new();
    let targets = Targets::new(layers).await;
    let mut all_words = Vec::new();
    for Row { attack, words, root, user } in rows() {
        let expected = if is_root() { root } else { user };
        let words = words(&targets);
        all_words.push(words.join(" "));
        let expected = match expected.chars().nth(index).unwrap() {
            's' if scopes => 'h',
            // Would kill the victim and fail `Targets::end`.
            's' if words == ["kill-all"] => '-',
            's' => 'x',
            other => other,
        };
        if expected == '-' {
            continue;
        }
        let succeeded = targets.attack_succeeds(&words).await;
        if let [word, path] = &words[..]
            && word == "write"
        {
            let _ = std::fs::remove_file(path);
        }
        if expected != 'v' && succeeded != (expected == 'x') {
            writeln!(mismatches, "{attack}: succeeded: {succeeded}").unwrap();
        }
    }
    for attack in resident::successful_attacks(&targets.fixture, &all_words).await {
        writeln!(mismatches, "{attack}: succeeded in a child of a resident program").unwrap();
    }
    for (attack, how, expected) in LEFT_BEHIND {
        if expected.chars().nth(index) == Some('h') {
            let mut fifo = ProcessFifo::at(&targets.open);
            let words = ["leave".to_owned(), fifo.path.display().to_string(), how.to_owned()];
            assert!(targets.attack_succeeds(&words).await, "{attack}: the attack failed to start");
            assert_eq!(fifo.read_line().await, "away");
            fifo.wait_closed().await;
            std::fs::remove_file(&fifo.path).unwrap();
        }
    }
    targets.end().await;
    assert!(mismatches.is_empty(), "{mismatches}");
}

#[tokio::test]
async fn attacks_on_base_layer() {
    check_attacks("attacks_on_base_layer", 0).await;
}

#[tokio::test]
async fn attacks_on_landlock_and_seccomp() {
    check_attacks("attacks_on_landlock_and_seccomp", 1).await;
}

#[tokio::test]
async fn attacks_on_namespaces_and_seccomp() {
    check_attacks("attacks_on_namespaces_and_seccomp", 2).await;
}

#[tokio::test]
async fn attacks_on_all_layers() {
    check_attacks("attacks_on_all_layers", 3).await;
}

#[test]
fn readme_table_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (before, rest) = readme.split_once("<!-- table -->\n").unwrap();
    let (table, after) = rest.split_once("<!-- end of table -->").unwrap();
    let expected = table_of_rows();
    if std::env::var_os("UPDATE_TABLE").is_some() {
        std::fs::write(
            path,
            format!("{before}<!-- table -->\n{expected}<!-- end of table -->{after}"),
        )
        .unwrap();
    } else {
        assert!(table == expected, "UPDATE_TABLE=1 rewrites it:\n{expected}");
    }
    if !is_root() {
        report_skipped("columns of a root server", "each run checks its own columns");
    }
}

#[test]
fn readme_table_of_resident_programs_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (start, end) = ("<!-- table of resident programs -->\n", "<!-- end of that table -->");
    let (before, rest) = readme.split_once(start).unwrap();
    let (table, after) = rest.split_once(end).unwrap();
    let expected = resident::table();
    if std::env::var_os("UPDATE_TABLE").is_some() {
        std::fs::write(path, format!("{before}{start}{expected}{end}{after}")).unwrap();
    } else {
        assert!(table == expected, "UPDATE_TABLE=1 rewrites it:\n{expected}");
    }
}

fn table_of_rows() -> String {
    let mut table = String::from("| attack |");
    for server in ["root", "another user"] {
        for (plan, _) in PLANS {
            write!(table, " {server}: {plan} |").unwrap();
        }
    }
    table.push_str(" a child of a resident program, under each plan |");
    table.push_str("\n|---|---|---|---|---|---|---|---|---|---|\n");
    let mut line = |attack: &str, root: &str, user: &str, child: char| {
        write!(table, "| {attack} |").unwrap();
        for expected in root.chars().chain(user.chars()).chain([child]) {
            write!(table, " {} |", cell_text(expected)).unwrap();
        }
        table.push('\n');
    };
    for Row { attack, root, user, .. } in rows() {
        line(attack, root, user, 'h');
    }
    for (attack, _, expected) in LEFT_BEHIND {
        line(attack, expected, expected, 'h');
    }
    for attack in FLOODS {
        line(attack, "hhhh", "hhhh", '-');
    }
    table
}

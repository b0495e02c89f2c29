//! Every attack under every plan, and the table of them in `sandbox/README.md`, which this compares with what it finds.
//! `UPDATE_TABLE=1` writes what it finds there instead: once as root, once as another user.

use std::fmt::Write as _;

use crate::hostile::{Field, PLANS, fresh_name, has_scopes, leak, skipped_where_it_lacks};
use crate::place::{Witness, is_root, skipped};

/// What is expected under the four plans: `x` it gets through, `h` it is held, `-` it is not tried, `v` either, by the
/// machine: a gap that newer kernels close, or a control that some machines deny to everybody, `s` it is held from Linux 6.12
/// on, by Landlock's scopes.
struct Row {
    attack: &'static str,
    words: fn(&Field) -> Vec<String>,
    root: &'static str,
    user: &'static str,
}

macro_rules! row {
    ($attack:literal, $root:literal, $user:literal, |$field:ident| [$($word:expr),+]) => {
        Row { attack: $attack, root: $root, user: $user, words: |$field: &Field| {
            let _ = $field;
            vec![$($word.to_string()),+]
        } }
    };
}

fn rows() -> Vec<Row> {
    vec![
        // Files.
        row!("read the server's key", "xhhh", "xhhh", |f| ["read", f.secret.display()]),
        row!("read /etc/shadow", "hhhh", "hhhh", |f| ["read", "/etc/shadow"]),
        row!("read another job's media", "xhhh", "xhhh", |f| [
            "read",
            f.other.media_path().display()
        ]),
        row!("list the jobs", "hhhh", "xhhh", |f| ["list", f.place.jobs().display()]),
        row!("write to /tmp", "xhhh", "xhhh", |f| ["write", format!("/tmp/{}", fresh_name())]),
        row!("write to /var/tmp", "xhhh", "xhhh", |f| [
            "write",
            format!("/var/tmp/{}", fresh_name())
        ]),
        row!("write to /usr", "hhhh", "hhhh", |f| ["write", format!("/usr/{}", fresh_name())]),
        row!("link to a file of its user's", "hhhh", "xhhh", |f| ["link", f.secret.display()]),
        row!("change the mode of a file of its user's", "hhhh", "xhhh", |f| [
            "chmod",
            f.secret.display()
        ]),
        row!("ask for the size of a file", "xxhh", "xxhh", |f| ["stat", f.secret.display()]),
        row!("watch what others do with files", "xhhh", "xhhh", |f| ["inotify", "/usr/bin"]),
        row!("write beside the server's files", "xhhh", "xhhh", |f| [
            "write",
            f.closed.join(fresh_name()).display()
        ]),
        row!("change the media", "hhhh", "xxhh", |f| ["rewrite", "MEDIA"]),
        row!("put another file in the media's place", "xxhh", "xxhh", |f| ["replace", "MEDIA"]),
        row!("make a device", "hhhh", "hhhh", |f| ["mknod"]),
        row!("use a descriptor of the server's", "hhhh", "hhhh", |f| ["descriptors"]),
        // The network.
        row!("TCP to this machine", "xhhh", "xhhh", |f| ["tcp", f.tcp.local_addr().unwrap()]),
        row!("UDP to this machine", "xhhh", "xhhh", |f| ["udp", f.udp.local_addr().unwrap()]),
        row!("UDP to port 53, for names", "xhhh", "xhhh", |f| ["udp", "127.0.0.1:53"]),
        row!("TCP to 169.254.169.254", "-hhh", "-hhh", |f| ["tcp", "169.254.169.254:80"]),
        row!("a netlink socket", "xhhh", "xhhh", |f| ["socket", 16, 3, 0]),
        row!("a packet socket", "hhhh", "hhhh", |f| ["socket", 17, 3, 0]),
        row!("a vsock", "vhhh", "vhhh", |f| ["socket", 40, 1, 0]),
        row!("a kernel crypto socket", "vhhh", "vhhh", |f| ["socket", 38, 5, 0]),
        row!("an abstract socket outside", "xshh", "xshh", |f| ["abstract", f.abstract_name]),
        row!("a unix socket outside", "xvhh", "xvhh", |f| ["connect", f.socket.display()]),
        row!("a datagram to a unix socket outside", "xvhh", "xvhh", |f| [
            "datagram",
            f.datagrams.display()
        ]),
        row!("the configured socket (wanted)", "xxxx", "xxxx", |f| [
            "connect",
            f.configured.display()
        ]),
        // Other processes.
        row!("/proc/SERVER/environ", "hhhh", "xhhh", |f| ["read", of_server("environ")]),
        row!("/proc/SERVER/fd", "hhhh", "xhhh", |f| ["list", of_server("fd")]),
        row!("/proc/SERVER/mem", "hhhh", "vhhh", |f| ["read", of_server("mem")]),
        row!("/proc/SERVER/root", "hhhh", "xhhh", |f| ["read", of_server("root/etc/passwd")]),
        row!("trace a process of its user", "vhhh", "vhhh", |f| ["ptrace", f.victim.id()]),
        row!("read the memory of one", "vhhh", "vhhh", |f| ["process_vm_readv", f.victim.id()]),
        row!("take a descriptor of one", "vhhh", "vhhh", |f| ["pidfd_getfd", f.victim.id()]),
        row!("share memory with one", "xhhh", "xhhh", |f| ["shmat", f.segment.0]),
        row!("signal one", "xshh", "xshh", |f| ["kill", f.victim.id()]),
        row!("signal the server", "hhhh", "xshh", |f| ["kill", std::process::id()]),
        row!("signal the server's process group", "xshh", "xshh", |f| [
            "kill",
            -nix::unistd::getpgrp().as_raw()
        ]),
        // Of this the field's end is the proof, where the victim has to be alive.
        row!("kill everybody", "-shh", "-shh", |f| ["kill-everybody"]),
        row!("kill its parent", "hhhh", "xshh", |f| ["kill-parent"]),
        row!("limits of another process", "xhhh", "xhhh", |f| ["prlimit", f.victim.id()]),
        row!("priority of another process", "xhhh", "xhhh", |f| ["setpriority", f.victim.id()]),
        row!("processors of another process", "xhhh", "xhhh", |f| [
            "sched_setaffinity",
            f.victim.id()
        ]),
        // The kernel.
        row!("unshare", "vhhh", "vhhh", |f| ["unshare"]),
        row!("setns", "hhhh", "hhhh", |f| ["setns"]),
        row!("clone with a namespace", "vhhh", "vhhh", |f| ["clone"]),
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
        row!("an unknown system call", "hhhh", "hhhh", |f| ["unknown"]),
        row!("personality", "xhhh", "xhhh", |f| ["personality"]),
        row!("/dev/tty", "hhhh", "hhhh", |f| ["read", "/dev/tty"]),
        row!("type into a terminal", "xhhh", "xhhh", |f| ["tiocsti"]),
        row!("raise its own limits", "hhhh", "hhhh", |f| ["raise-limits"]),
        // Using things up. The base layer is not given what is without end.
        row!("a fork bomb", "hhhh", "hhhh", |f| ["limit", "processes"]),
        row!("a memory bomb, in one process", "hhhh", "hhhh", |f| ["limit", "memory"]),
        row!("fill the disk", "xxhh", "xxhh", |f| ["limit", "disk"]),
        row!("fill the disk, with many files", "xxhh", "xxhh", |f| ["limit", "disk-by-many"]),
        row!("70,000 files", "--hh", "--hh", |f| ["limit", "files"]),
        row!("all descriptors", "hhhh", "hhhh", |f| ["limit", "descriptors"]),
    ]
}

fn of_server(file: &str) -> String {
    format!("/proc/{}/{file}", std::process::id())
}

fn cell(expected: char) -> &'static str {
    match expected {
        'x' => "**gets through**",
        'h' => "holds",
        's' => "holds, from Linux 6.12",
        'v' => "depends",
        _ => "",
    }
}

/// Attacks of which nothing may be left: how they leave a process behind, and under which plans they are tried.
const LEFT_BEHIND: [(&str, &str, &str); 2] = [
    ("outlive the job: fork twice, leave the session", "asleep", "hhhh"),
    ("outlive the job: fork without end", "churning", "-hhh"),
];

async fn attacks_end_as_the_table_says(test: &str, index: usize) {
    let (_, layers) = PLANS.into_iter().nth(index).unwrap();
    if skipped_where_it_lacks(layers, test).await {
        return;
    }
    let scopes = has_scopes().await;
    let _leak = leak();
    let mut wrong = String::new();
    let field = Field::new(layers).await;
    for Row { attack, words, root, user } in rows() {
        let expected = if is_root() { root } else { user };
        let words = words(&field);
        let expected = match expected.chars().nth(index).unwrap() {
            's' if scopes => 'h',
            // That there is no victim left would say so, and fail the field.
            's' if words == ["kill-everybody"] => '-',
            's' => 'x',
            other => other,
        };
        if expected == '-' {
            continue;
        }
        let through = field.gets_through(&words).await;
        if let [word, path] = &words[..]
            && word == "write"
        {
            let _ = std::fs::remove_file(path);
        }
        if expected != 'v' && through != (expected == 'x') {
            writeln!(wrong, "{attack}: through: {through}").unwrap();
        }
    }
    for (attack, how, expected) in LEFT_BEHIND {
        if expected.chars().nth(index) == Some('h') {
            let mut witness = Witness::at(&field.open);
            let words = ["leave".to_owned(), witness.path.display().to_string(), how.to_owned()];
            assert!(field.gets_through(&words).await, "{attack}: not tried");
            assert_eq!(witness.line().await, "away");
            witness.is_gone().await;
            std::fs::remove_file(&witness.path).unwrap();
        }
    }
    field.end().await;
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test]
async fn attacks_on_the_base_alone() {
    attacks_end_as_the_table_says("attacks_on_the_base_alone", 0).await;
}

#[tokio::test]
async fn attacks_on_landlock_and_seccomp() {
    attacks_end_as_the_table_says("attacks_on_landlock_and_seccomp", 1).await;
}

#[tokio::test]
async fn attacks_on_namespaces_and_seccomp() {
    attacks_end_as_the_table_says("attacks_on_namespaces_and_seccomp", 2).await;
}

#[tokio::test]
async fn attacks_on_all_layers() {
    attacks_end_as_the_table_says("attacks_on_all_layers", 3).await;
}

#[test]
fn the_table_in_the_readme_is_this_one() {
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
        assert!(table == expected, "UPDATE_TABLE=1 writes it anew:\n{expected}");
    }
    if !is_root() {
        skipped("the columns of a server that is root", "each run sees its own");
    }
}

fn table_of_rows() -> String {
    let mut table = String::from("| attack |");
    for server in ["root", "another user"] {
        for (plan, _) in PLANS {
            write!(table, " {server}: {plan} |").unwrap();
        }
    }
    table.push_str("\n|---|---|---|---|---|---|---|---|---|\n");
    let mut line = |attack: &str, root: &str, user: &str| {
        write!(table, "| {attack} |").unwrap();
        for expected in root.chars().chain(user.chars()) {
            write!(table, " {} |", cell(expected)).unwrap();
        }
        table.push('\n');
    };
    for Row { attack, root, user, .. } in rows() {
        line(attack, root, user);
    }
    for (attack, _, expected) in LEFT_BEHIND {
        line(attack, expected, expected);
    }
    table
}

//! Restrictions of programs. Where possible, the same program outside the sandbox serves as control.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use mcs_sandbox::{Command, Policy, ResourceLimits, Termination};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit};

use crate::fixture::{
    Fixture, LONG_TIMEOUT, USER, is_root, policy, report_skipped, sh, skip_without_root, text,
    unsandboxed,
};

async fn program_environment(fixture: &Fixture) -> (Vec<Vec<u8>>, String) {
    let mut job = fixture.job().await;
    let env = Command { program: "env".into(), args: vec!["-0".into()] };
    let exit = job.run(&env, LONG_TIMEOUT, 10_000).await.unwrap();
    let directory = job.directory().to_str().unwrap().to_owned();
    job.close().await.unwrap();
    let mut variables: Vec<_> =
        exit.stdout.split_inclusive(|b| *b == 0).map(<[u8]>::to_vec).collect();
    variables.sort();
    (variables, directory)
}

#[tokio::test]
async fn variables_contains_only_defaults() {
    let (found, directory) = program_environment(&Fixture::new()).await;
    let expected = [
        format!("HOME={directory}\0"),
        "LANG=C.UTF-8\0".to_owned(),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0".to_owned(),
        format!("TMPDIR={directory}/tmp\0"),
    ];
    assert_eq!(found, expected.map(String::into_bytes));
}

#[tokio::test]
async fn policy_variables_adds_and_overrides_variables() {
    let strange = OsString::from_vec(b"\xff = \n".to_vec());
    let overrides = vec![("STRANGE".into(), strange), ("LANG".into(), "de_DE".into())];
    let (found, directory) =
        program_environment(&Fixture::with(Policy { environment: overrides, ..policy() })).await;
    let expected = [
        format!("HOME={directory}\0").into_bytes(),
        b"LANG=de_DE\0".to_vec(),
        b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0".to_vec(),
        b"STRANGE=\xff = \n\0".to_vec(),
        format!("TMPDIR={directory}/tmp\0").into_bytes(),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn only_standard_descriptors_are_open() {
    const OPEN: &str =
        "i=0; while [ $i -lt 1024 ]; do [ -e /proc/$$/fd/$i ] && echo $i; i=$((i+1)); done; exit 0";
    // The runtime and its helper already have their descriptors; concurrent tests may open more.
    let fixture = Fixture::new();
    let leak = File::open("/dev/null").unwrap();
    // A number that concurrent tests do not use.
    let leak = fcntl(&leak, FcntlArg::F_DUPFD(900)).unwrap();
    assert!((900..1024).contains(&leak), "{leak}");

    let exit = fixture.sh(OPEN).await;
    assert_eq!(text(&exit.stdout), "0\n1\n2\n");

    let control = unsandboxed("/bin/sh").args(["-c", OPEN]).output().unwrap();
    assert!(text(&control.stdout).lines().any(|line| line == leak.to_string()));
    nix::unistd::close(leak).unwrap();
}

#[tokio::test]
async fn stdin_is_dev_null() {
    let fixture = Fixture::new();
    let exit =
        fixture.sh("read -r line && exit 1; (echo x >&0) && exit 2; readlink /proc/$$/fd/0").await;
    assert_eq!((exit.termination, text(&exit.stdout)), (Termination::Exited(0), "/dev/null\n"));
}

#[tokio::test]
async fn has_no_capabilities() {
    let fixture = Fixture::new();
    let status = status(&fixture).await;
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    if is_root() {
        assert_eq!(field(&status, "CapBnd"), "0000000000000000");
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert_ne!(field(&own, "CapEff"), "0000000000000000", "control");
    } else {
        report_skipped("the bounding set", "needs root");
    }
}

#[tokio::test]
async fn runs_with_configured_ids() {
    if skip_without_root("runs_with_configured_ids") {
        return;
    }
    // Applies to the whole test program, which is harmless. Without it there may be no group to drop.
    nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(61_236)]).unwrap();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(field(&own, "Groups"), "61236", "control");
    let status = status(&Fixture::new()).await;
    assert_eq!(field(&status, "Uid"), [USER.uid.to_string().as_str(); 4].join("\t"));
    assert_eq!(field(&status, "Gid"), [USER.gid.to_string().as_str(); 4].join("\t"));
    assert_eq!(field(&status, "Groups"), "");
}

#[tokio::test]
async fn resets_signals_and_umask() {
    let status = status(&Fixture::new()).await;
    for set in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "Umask"), "0077");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_ne!(field(&own, "SigIgn"), "0000000000000000", "control: Rust ignores SIGPIPE");
}

async fn status(fixture: &Fixture) -> String {
    let cat = Command { program: "cat".into(), args: vec!["/proc/self/status".into()] };
    let exit = fixture.run(&cat).await.unwrap();
    assert_eq!(exit.termination, Termination::Exited(0));
    text(&exit.stdout).to_owned()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim()
}

#[tokio::test]
async fn leads_session_without_terminal() {
    let exit = Fixture::new().sh("cat /proc/$$/stat; exec 3< /dev/tty").await;
    let stat = text(&exit.stdout);
    let pid: u32 = stat.split(' ').next().unwrap().parse().unwrap();
    let fields: Vec<i64> = stat
        .rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .skip(2)
        .take(3)
        .map(|field| field.parse().unwrap())
        .collect();
    assert_eq!(fields, [i64::from(pid), i64::from(pid), 0], "process group, session, terminal");
    assert_ne!(exit.termination, Termination::Exited(0));
}

#[tokio::test]
async fn runs_with_lower_priority() {
    let exit = Fixture::new().sh("cat /proc/$$/stat").await;
    let nice = |stat: &str| -> i64 {
        let fields = stat.rsplit_once(") ").unwrap().1;
        fields.split(' ').nth(16).unwrap().parse().unwrap()
    };
    let own = nice(&std::fs::read_to_string("/proc/self/stat").unwrap());
    assert_eq!(nice(text(&exit.stdout)), (own + 10).min(19));
}

#[tokio::test]
async fn applies_resource_limits() {
    let limits = ResourceLimits {
        cpu_time: Some(Duration::from_millis(6500)),
        file_size: Some(12_345),
        open_files: Some(77),
        processes: Some(3000),
        address_space: Some(5 << 30),
        ..ResourceLimits::default()
    };
    let fixture = Fixture::with(Policy { limits, ..policy() });
    let cat = Command { program: "cat".into(), args: vec!["/proc/self/limits".into()] };
    let found = text(&fixture.run(&cat).await.unwrap().stdout).to_owned();
    let limit = |name: &str| {
        let line = found.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let mut fields = line.split_whitespace();
        (fields.next().unwrap().to_owned(), fields.next().unwrap().to_owned())
    };
    let both = |value: u64| (value.to_string(), value.to_string());
    assert_eq!(limit("Max cpu time"), ("7".to_owned(), "8".to_owned()));
    assert_eq!(limit("Max file size"), both(12_345));
    assert_eq!(limit("Max open files"), both(77));
    assert_eq!(limit("Max processes"), both(3000));
    assert_eq!(limit("Max address space"), both(5 << 30));
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    assert_eq!(limit("Max core file size"), both(hard.min(1)));
}

#[tokio::test]
async fn enforces_file_size_limit() {
    let limits = ResourceLimits { file_size: Some(10_000), ..ResourceLimits::default() };
    let fixture = Fixture::with(Policy { limits, ..policy() });
    // SIGXFSZ.
    let exit = fixture.sh("exec head -c 20000 /dev/zero > tmp/file").await;
    assert_eq!(exit.termination, Termination::Signaled(25));
}

#[tokio::test]
async fn core_dumps_are_empty_and_oom_score_is_raised() {
    let exit = Fixture::new().sh("cat /proc/$$/coredump_filter /proc/$$/oom_score_adj").await;
    let own: i32 =
        std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let expected = format!("00000000\n{}\n", (own + 500).min(1000));
    assert_eq!(text(&exit.stdout), expected);
}

#[tokio::test]
async fn setuid_program_gains_no_privileges() {
    let su = std::path::Path::new("/bin/su");
    if !su.exists() {
        report_skipped("setuid_program_gains_no_privileges", "/bin/su is missing");
        return;
    }
    let mut job = Fixture::new().job().await;
    let exit = job.run(&sh(&job, "su -c id < /dev/null"), LONG_TIMEOUT, 1000).await.unwrap();
    assert!(!text(&exit.stdout).contains("uid=0"), "{exit:?}");
    assert_ne!(exit.termination, Termination::Exited(0));
    job.close().await.unwrap();
}

#[tokio::test]
async fn program_cannot_inspect_helper() {
    // The helper is not dumpable, so its /proc files belong to root.
    let exit =
        Fixture::new().sh("head -c 1 /proc/$PPID/environ || exit 9; ls /proc/$PPID/fd").await;
    assert_eq!(exit.termination, Termination::Exited(9), "{exit:?}");
}

//! What a program is, sees and may use. Where it is harmless the same program outside shows that the test can fail.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use mcs_sandbox::{Command, Layer, Limits, Outcome, Policy};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit};

use crate::place::{
    AMPLE, Place, USER, is_root, outside, policy, sh, skipped, skipped_without_root, text,
};

async fn environment(place: &Place) -> (Vec<Vec<u8>>, String) {
    let mut job = place.job().await;
    let env = Command { program: "env".into(), args: vec!["-0".into()] };
    let exit = job.run(&env, AMPLE, 10_000).await.unwrap();
    let directory = job.directory().to_str().unwrap().to_owned();
    job.close().await.unwrap();
    let mut variables: Vec<_> =
        exit.stdout.split_inclusive(|b| *b == 0).map(<[u8]>::to_vec).collect();
    variables.sort();
    (variables, directory)
}

#[tokio::test]
async fn the_environment_is_exactly_the_listed_one() {
    let (found, directory) = environment(&Place::new()).await;
    let expected = [
        format!("HOME={directory}\0"),
        "LANG=C.UTF-8\0".to_owned(),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0".to_owned(),
        format!("TMPDIR={directory}/tmp\0"),
    ];
    assert_eq!(found, expected.map(String::into_bytes));
}

#[tokio::test]
async fn the_operators_variables_are_added_or_take_the_place_of_others() {
    let strange = OsString::from_vec(b"\xff = \n".to_vec());
    let environment_ = vec![("STRANGE".into(), strange), ("LANG".into(), "de_DE".into())];
    let (found, directory) =
        environment(&Place::with(Policy { environment: environment_, ..policy() })).await;
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
async fn descriptors_are_exactly_the_three_though_the_server_leaks_one() {
    const OPEN: &str =
        "i=0; while [ $i -lt 1024 ]; do [ -e /proc/$$/fd/$i ] && echo $i; i=$((i+1)); done; exit 0";
    // By now the runtime and its helper have theirs; a test in parallel may add to them.
    let place = Place::new();
    let leak = File::open("/dev/null").unwrap();
    // Up to where no test in parallel uses the number.
    let leak = fcntl(&leak, FcntlArg::F_DUPFD(900)).unwrap();
    assert!((900..1024).contains(&leak), "{leak}");

    let exit = place.sh(OPEN).await;
    assert_eq!(text(&exit.stdout), "0\n1\n2\n");

    let control = outside("/bin/sh").args(["-c", OPEN]).output().unwrap();
    assert!(text(&control.stdout).lines().any(|line| line == leak.to_string()));
    nix::unistd::close(leak).unwrap();
}

#[tokio::test]
async fn standard_input_is_at_its_end() {
    let place = Place::new();
    let exit =
        place.sh("read -r line && exit 1; (echo x >&0) && exit 2; readlink /proc/$$/fd/0").await;
    assert_eq!((exit.outcome, text(&exit.stdout)), (Outcome::Exited(0), "/dev/null\n"));
}

#[tokio::test]
async fn standard_input_may_be_a_file_in_memory_that_no_program_changes() {
    const SCRIPT: &str = "cat; (echo x >&0) 2>/dev/null && exit 1; \
        (echo x >>/proc/self/fd/0) 2>/dev/null && exit 2; exit 0";
    let file = mcs_sandbox::sealed("test", b"sealed").unwrap();
    let command = Command { program: "/bin/sh".into(), args: vec!["-c".into(), SCRIPT.into()] };
    // By the base layer alone, with each layer beside it, and with all that the machine has.
    let mut places: Vec<_> =
        Layer::ALL.into_iter().map(|layer| Place::with_layers(policy(), &[layer])).collect();
    places.push(Place::new());
    let tried = Place::new();
    let sandbox = tried.candidate().settle(&tried.jobs()).await.unwrap();
    let held: Vec<_> =
        Layer::ALL.into_iter().filter(|layer| sandbox.layers().holds(*layer)).collect();
    places.retain(|place| {
        Layer::ALL.into_iter().all(|it| !place.sandbox.layers().holds(it) || held.contains(&it))
    });
    places.push(Place::with_layers(policy(), &held));
    for place in places {
        // Each reads it from its beginning, though they share the offset.
        std::io::Seek::rewind(&mut (&file)).unwrap();
        let mut job = place.job().await;
        let exit = job.run_with_input(&command, file.as_fd(), AMPLE, 1000).await.unwrap();
        assert_eq!((exit.outcome, text(&exit.stdout)), (Outcome::Exited(0), "sealed"));
        // Of the next program standard input is at its end again.
        let cat = Command { program: "cat".into(), args: Vec::new() };
        let exit = job.run(&cat, AMPLE, 1000).await.unwrap();
        assert_eq!((exit.outcome, text(&exit.stdout)), (Outcome::Exited(0), ""));
        job.close().await.unwrap();
    }
}

#[tokio::test]
async fn there_are_no_capabilities_and_none_to_be_had() {
    let place = Place::new();
    let status = status(&place).await;
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    if is_root() {
        assert_eq!(field(&status, "CapBnd"), "0000000000000000");
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert_ne!(field(&own, "CapEff"), "0000000000000000", "the control");
    } else {
        skipped("the bounding set", "needs root");
    }
}

#[tokio::test]
async fn user_group_and_groups_are_the_configured_ones() {
    if skipped_without_root("user_group_and_groups_are_the_configured_ones") {
        return;
    }
    // Of the whole test program; harmless, and without it there may be no group to leave.
    nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(61_236)]).unwrap();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(field(&own, "Groups"), "61236", "the control");
    let status = status(&Place::new()).await;
    assert_eq!(field(&status, "Uid"), [USER.uid.to_string().as_str(); 4].join("\t"));
    assert_eq!(field(&status, "Gid"), [USER.gid.to_string().as_str(); 4].join("\t"));
    assert_eq!(field(&status, "Groups"), "");
}

#[tokio::test]
async fn signals_mask_and_umask_are_reset() {
    let status = status(&Place::new()).await;
    for set in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "Umask"), "0077");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_ne!(field(&own, "SigIgn"), "0000000000000000", "the control: Rust ignores SIGPIPE");
}

async fn status(place: &Place) -> String {
    let cat = Command { program: "cat".into(), args: vec!["/proc/self/status".into()] };
    let exit = place.run(&cat).await.unwrap();
    assert_eq!(exit.outcome, Outcome::Exited(0));
    text(&exit.stdout).to_owned()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim()
}

#[tokio::test]
async fn the_program_leads_a_session_of_its_own_without_a_terminal() {
    let exit = Place::new().sh("cat /proc/$$/stat; exec 3< /dev/tty").await;
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
    assert_ne!(exit.outcome, Outcome::Exited(0));
}

#[tokio::test]
async fn a_program_gives_way_to_the_server() {
    let exit = Place::new().sh("cat /proc/$$/stat").await;
    let nice = |stat: &str| -> i64 {
        let fields = stat.rsplit_once(") ").unwrap().1;
        fields.split(' ').nth(16).unwrap().parse().unwrap()
    };
    let own = nice(&std::fs::read_to_string("/proc/self/stat").unwrap());
    assert_eq!(nice(text(&exit.stdout)), (own + 5).min(19));
}

#[tokio::test]
async fn resource_limits_are_those_of_the_policy() {
    let limits = Limits {
        cpu_time: Some(Duration::from_millis(6500)),
        file_size: Some(12_345),
        open_files: Some(77),
        processes: Some(3000),
        address_space: Some(5 << 30),
        ..Limits::default()
    };
    let place = Place::with(Policy { limits, ..policy() });
    let cat = Command { program: "cat".into(), args: vec!["/proc/self/limits".into()] };
    let found = text(&place.run(&cat).await.unwrap().stdout).to_owned();
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
async fn a_file_grows_no_further_than_its_limit() {
    let limits = Limits { file_size: Some(10_000), ..Limits::default() };
    let place = Place::with(Policy { limits, ..policy() });
    // SIGXFSZ.
    let exit = place.sh("exec head -c 20000 /dev/zero > tmp/file").await;
    assert_eq!(exit.outcome, Outcome::Signaled(25));
}

#[tokio::test]
async fn a_dump_of_memory_has_nothing_in_it_and_the_kernel_kills_jobs_first() {
    let exit = Place::new().sh("cat /proc/$$/coredump_filter /proc/$$/oom_score_adj").await;
    let own: i32 =
        std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let expected = format!("00000000\n{}\n", (own + 500).min(1000));
    assert_eq!(text(&exit.stdout), expected);
}

#[tokio::test]
async fn a_setuid_program_gives_no_user() {
    let su = std::path::Path::new("/bin/su");
    if !su.exists() {
        skipped("a_setuid_program_gives_no_user", "there is no su");
        return;
    }
    let mut job = Place::new().job().await;
    let exit = job.run(&sh(&job, "su -c id < /dev/null"), AMPLE, 1000).await.unwrap();
    assert!(!text(&exit.stdout).contains("uid=0"), "{exit:?}");
    assert_ne!(exit.outcome, Outcome::Exited(0));
    job.close().await.unwrap();
}

#[tokio::test]
async fn the_helper_is_closed_to_its_programs() {
    // Not dumpable: what it has in /proc is root's, whoever runs it.
    let exit = Place::new().sh("head -c 1 /proc/$PPID/environ || exit 9; ls /proc/$PPID/fd").await;
    assert_eq!(exit.outcome, Outcome::Exited(9), "{exit:?}");
}

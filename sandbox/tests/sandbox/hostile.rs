//! The field on which the hostile program strikes: what it aims at, the plans it is held by, and one strike.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use mcs_sandbox::{
    Command, Error, Exit, Job, Layer, Limits, Mode, Network, Outcome, Paths, Policy, User,
};

use crate::place::{AMPLE, Place, Witness, is_root, outside, policy};

/// A user of the hostile program's own, since what it uses up counts for all of a user's processes.
const USER: User = User { uid: 61_237, gid: 61_238 };

/// The control, what a container has, what an old kernel has, and everything.
pub(crate) const PLANS: [(&str, &[Layer]); 4] = [
    ("base alone", &[]),
    ("Landlock, seccomp", &[Layer::Landlock, Layer::Seccomp]),
    ("namespaces, seccomp", &[Layer::Namespaces, Layer::Seccomp]),
    ("all", &ALL),
];

/// What every machine of today has: cgroups are tried by themselves, since few machines give one to a test.
pub(crate) const ALL: [Layer; 3] = [Layer::Namespaces, Layer::Landlock, Layer::Seccomp];

/// Where `cargo test` puts the example.
pub(crate) fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().join("examples/hostile")
}

/// What there is to attack, all of it the test's own.
pub(crate) struct Field {
    pub(crate) place: Place,
    pub(crate) secret: PathBuf,
    /// For everybody to write, outside the sandbox.
    pub(crate) closed: PathBuf,
    /// The same, and in the policy.
    pub(crate) open: PathBuf,
    pub(crate) tcp: TcpListener,
    pub(crate) udp: UdpSocket,
    pub(crate) abstract_name: String,
    pub(crate) socket: PathBuf,
    pub(crate) configured: PathBuf,
    pub(crate) datagrams: PathBuf,
    /// Shared memory, for everybody.
    pub(crate) segment: Segment,
    /// A process of the script's own user, outside.
    pub(crate) victim: Victim,
    pub(crate) other: Job,
    _listeners: Vec<UnixListener>,
    _receiver: UnixDatagram,
}

impl Field {
    pub(crate) async fn new(layers: &[Layer]) -> Self {
        Self::with(layers, |policy| policy).await
    }

    /// The same with another policy.
    async fn with(layers: &[Layer], changed: impl FnOnce(Policy) -> Policy) -> Self {
        let root = Place::new_root();
        let [closed, open] = ["closed", "open"].map(|name| {
            let path = root.join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
            path
        });
        let secret = root.join("request_secret");
        fs::write(&secret, "secret").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
        let abstract_name = format!("mcs-{}", root.display());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let mut listeners = vec![UnixListener::bind_addr(&address).unwrap()];
        let [socket, configured] = ["socket", "configured"].map(|name| {
            let path = root.join(name);
            listeners.push(UnixListener::bind(&path).unwrap());
            fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
            path
        });
        let datagrams = root.join("datagrams");
        let receiver = UnixDatagram::bind(&datagrams).unwrap();
        fs::set_permissions(&datagrams, Permissions::from_mode(0o666)).unwrap();
        let policy = changed(Policy {
            user: is_root().then_some(USER),
            paths: Paths {
                read_only: vec![program()],
                writable: vec![open.clone()],
                unix_sockets: vec![configured.clone()],
            },
            limits: Limits {
                processes: Some(400),
                address_space: Some(512 << 20),
                open_files: Some(256),
                disk: 8 << 20,
                ..Limits::default()
            },
            ..policy()
        });
        let place = Place::at(root, policy, layers);
        let other = place.job().await;
        other.media().unwrap().write_all(b"plaintext").unwrap();
        Self {
            secret,
            closed,
            open,
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            abstract_name,
            socket,
            configured,
            datagrams,
            segment: Segment::new(),
            victim: Victim::new(),
            other,
            place,
            _listeners: listeners,
            _receiver: receiver,
        }
    }

    /// One strike; how the program ended.
    pub(crate) async fn strike(&self, words: &[String], limit: Duration) -> Result<Exit, Error> {
        let mut job = self.place.job().await;
        let mut args: Vec<OsString> = words.iter().map(OsString::from).collect();
        for arg in &mut args {
            if arg == "MEDIA" {
                *arg = job.media_path().into();
            }
        }
        let command = Command { program: program(), args };
        let exit = job.run(&command, limit, 1 << 16).await;
        job.close().await.unwrap();
        exit
    }

    /// Whether the attack got through.
    pub(crate) async fn gets_through(&self, words: &[String]) -> bool {
        match self.strike(words, AMPLE).await {
            Ok(Exit { outcome: Outcome::Exited(0), .. }) | Err(Error::HelperGone) => true,
            // 31 is SIGSYS, the filter's word on another architecture.
            Ok(Exit { outcome: Outcome::Exited(10) | Outcome::Signaled(31), .. }) => false,
            Ok(exit) => {
                panic!("{words:?}: {:?}: {}", exit.outcome, String::from_utf8_lossy(&exit.stderr))
            }
            Err(error) => panic!("{words:?}: {error:?}"),
        }
    }

    pub(crate) async fn end(self) {
        let Self { mut victim, other, place, .. } = self;
        assert!(victim.0.try_wait().unwrap().is_none(), "the victim is dead");
        other.close().await.unwrap();
        assert!(place.is_empty(), "a job was left");
    }
}

/// Dies with the test, whichever way that ends.
pub(crate) struct Victim(Child);

impl Victim {
    fn new() -> Self {
        let mut command = outside("/bin/sleep");
        command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if is_root() {
            command.uid(USER.uid).gid(USER.gid);
        }
        Self(command.spawn().unwrap())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Segment(pub(crate) String);

impl Segment {
    fn new() -> Self {
        let output = outside(program()).arg("make-segment").output().unwrap();
        Self(crate::place::text(&output.stdout).trim().parse().unwrap())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let removed = outside(program()).args(["remove-segment", &self.0]).status();
        assert!(removed.is_ok_and(|it| it.success()) || std::thread::panicking());
    }
}

/// A shell's script on the field.
async fn sh(field: &Field, script: &str, limit: Duration) -> Result<Exit, Error> {
    let mut job = field.place.job().await;
    let exit = job.run(&crate::place::sh(&job, script), limit, 1 << 16).await;
    job.close().await.unwrap();
    exit
}

#[tokio::test]
async fn under_every_plan_an_end_is_told_as_it_was() {
    for (plan, layers) in PLANS {
        let field = Field::new(layers).await;
        for code in [0, 1, 2, 125, 126, 127, 255] {
            let exit = sh(&field, &format!("exit {code}"), AMPLE).await.unwrap();
            assert_eq!(exit.outcome, Outcome::Exited(code), "{plan}");
        }
        // SEGV, KILL, XCPU, SYS.
        for signal in [11, 9, 24, 31] {
            let exit = sh(&field, &format!("kill -{signal} $$; sleep 60"), AMPLE).await.unwrap();
            assert_eq!(exit.outcome, Outcome::Signaled(signal), "{plan}");
        }
        for endless in [
            "while :; do :; done",
            "trap '' TERM INT HUP; while :; do sleep 60; done",
            "exec >&- 2>&-; sleep 60",
            "kill -STOP $$",
            "yes",
            "yes $(printf '\\033[2J') >&2",
        ] {
            let exit = sh(&field, endless, Duration::from_millis(300)).await.unwrap();
            assert_eq!(exit.outcome, Outcome::TimedOut, "{plan}: {endless}");
            assert!(exit.stdout.len() <= 1 << 16 && exit.stderr.len() <= 1 << 16);
        }
        let begin = Instant::now();
        let exit = sh(&field, "sleep 1000 & echo said; exit 3", AMPLE).await.unwrap();
        assert_eq!(
            (exit.outcome, &exit.stdout[..]),
            (Outcome::Exited(3), &b"said\n"[..]),
            "{plan}"
        );
        assert!(begin.elapsed() < AMPLE / 2, "{plan}: a child that holds the output is waited for");
        field.end().await;
    }
}

#[tokio::test]
async fn under_every_plan_a_program_that_cannot_be_executed_is_no_verdict() {
    for (plan, layers) in PLANS {
        let field = Field::new(layers).await;
        let broken = field.open.join("broken");
        fs::write(&broken, "#!/nowhere/sh\n").unwrap();
        fs::set_permissions(&broken, Permissions::from_mode(0o755)).unwrap();
        let plain = field.open.join("plain");
        fs::write(&plain, "#!/bin/sh\n").unwrap();
        for program in [Path::new("/nowhere/program"), &field.open, &broken, &plain] {
            let mut job = field.place.job().await;
            let command = Command { program: program.to_owned(), args: Vec::new() };
            let refused = job.run(&command, AMPLE, 100).await;
            assert!(
                matches!(refused, Err(Error::NotStarted { .. })),
                "{plan}: {} {refused:?}",
                program.display()
            );
            job.close().await.unwrap();
        }
        field.end().await;
    }
}

#[tokio::test]
async fn under_every_plan_environment_and_input_are_the_listed_ones() {
    for (plan, layers) in PLANS {
        let field = Field::new(layers).await;
        let mut job = field.place.job().await;
        let env = Command { program: "env".into(), args: vec!["-0".into()] };
        let exit = job.run(&env, AMPLE, 10_000).await.unwrap();
        let mut names: Vec<_> = exit
            .stdout
            .split(|byte| *byte == 0)
            .filter_map(|variable| variable.split(|byte| *byte == b'=').next())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort_unstable();
        assert_eq!(names, [&b"HOME"[..], b"LANG", b"PATH", b"TMPDIR"], "{plan}");
        job.close().await.unwrap();
        let script = r#"read -r line && exit 1; [ -r "$1" ] && cd "$TMPDIR" && echo x > "$1-log""#;
        let exit = sh(&field, script, AMPLE).await.unwrap();
        assert_eq!(exit.outcome, Outcome::Exited(0), "{plan}: {exit:?}");
        field.end().await;
    }
}

/// What Landlock does not take for TCP, or for connecting, is the filter's: the control is Landlock alone.
#[tokio::test]
async fn of_ports_the_listed_ones_are_reached_by_connecting_and_no_other_in_any_way() {
    let test = "of_ports_the_listed_ones_are_reached_by_connecting_and_no_other_in_any_way";
    let ports = TcpListener::bind("127.0.0.1:0").unwrap();
    let listed = ports.local_addr().unwrap();
    let policy = |policy: Policy| Policy { network: Network::Ports(vec![listed.port()]), ..policy };
    let place = Place::with(policy(crate::place::policy()));
    if let Err(error) = place.candidate().settle(&place.jobs()).await {
        crate::place::skipped(test, &format!("ports: {error}"));
        return;
    }
    for (layers, held) in [(&[Layer::Landlock][..], false), (PLANS[1].1, true), (&ALL, true)] {
        if skipped_where_it_lacks(layers, test).await {
            continue;
        }
        let field = Field::with(layers, policy).await;
        let other = field.tcp.local_addr().unwrap().to_string();
        let strike = async |words: &[&str]| {
            let words: Vec<_> = words.iter().map(ToString::to_string).collect();
            field.gets_through(&words).await
        };
        assert!(strike(&["tcp", &listed.to_string()]).await, "{layers:?}");
        assert!(!strike(&["tcp", &other]).await, "{layers:?}");
        let mptcp = fs::read_to_string("/proc/sys/net/mptcp/enabled");
        for (attack, gets_through) in [
            (["mptcp", &other], mptcp.is_ok_and(|enabled| enabled.trim() == "1")),
            (["fastopen", &other], true),
            (["listen", ""], true),
        ] {
            let attack: Vec<_> = attack.into_iter().filter(|word| !word.is_empty()).collect();
            let through = strike(&attack).await;
            // Some Landlock to come may hold them too.
            assert!(!held || !through, "{layers:?}: {attack:?}");
            if !held && through != gets_through {
                crate::place::skipped(
                    test,
                    &format!("the control: Landlock alone holds {attack:?}"),
                );
            }
        }
        field.end().await;
    }
}

#[tokio::test]
async fn where_no_unix_socket_is_wanted_none_is_reached() {
    for (plan, layers) in PLANS {
        let field = Field::with(layers, |mut policy| {
            policy.paths.unix_sockets.clear();
            policy
        })
        .await;
        for (word, path) in [("connect", &field.socket), ("datagram", &field.datagrams)] {
            let words = [word.to_owned(), path.display().to_string()];
            let through = field.gets_through(&words).await;
            // The base alone is the control.
            assert_eq!(through, layers.is_empty(), "{plan}: {word}");
        }
        field.end().await;
    }
}

#[tokio::test]
async fn under_every_plan_a_setuid_program_gives_no_user() {
    let test = "under_every_plan_a_setuid_program_gives_no_user";
    if crate::place::skipped_without_root(test) {
        return;
    }
    for (plan, layers) in PLANS {
        let mut copy = PathBuf::new();
        let field = Field::with(layers, |mut policy| {
            copy = policy.paths.writable[0].with_file_name("root-id");
            fs::copy("/usr/bin/id", &copy).unwrap();
            fs::set_permissions(&copy, Permissions::from_mode(0o4755)).unwrap();
            policy.paths.read_only.push(copy.clone());
            policy
        })
        .await;
        let mut control = outside(&copy);
        control.arg("-u").uid(USER.uid).gid(USER.gid);
        if control.output().unwrap().stdout != b"0\n" {
            return crate::place::skipped(test, "the control: set-user-ID is off on this mount");
        }
        let mut job = field.place.job().await;
        let command = Command { program: copy, args: vec!["-u".into()] };
        let exit = job.run(&command, AMPLE, 100).await.unwrap();
        assert_eq!(crate::place::text(&exit.stdout).trim(), USER.uid.to_string(), "{plan}");
        job.close().await.unwrap();
        field.end().await;
    }
}

/// A clean job in the middle of hostile ones may take this long: alone it takes some hundredths of a second.
const QUICK: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_hundred_hostile_jobs_beside_clean_ones_change_no_clean_verdict() {
    let field = std::sync::Arc::new(Field::new(&ALL).await);
    if skipped_where_it_lacks(&ALL, "a_hundred_hostile_jobs_beside_clean_ones").await {
        return;
    }
    let turns = std::sync::Arc::new(tokio::sync::Semaphore::new(8));
    let mut jobs = tokio::task::JoinSet::new();
    for index in 0..100 {
        let (field, turns) = (std::sync::Arc::clone(&field), std::sync::Arc::clone(&turns));
        jobs.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let limit = Duration::from_secs(1);
            let _ = match index % 6 {
                4 => sh(&field, "while :; do :; done", limit).await,
                5 => sh(&field, "yes", limit).await,
                what => {
                    let what = ["processes", "memory", "disk", "descriptors"][what];
                    field.strike(&["limit".to_owned(), what.to_owned()], limit).await
                }
            };
        });
    }
    let hostile = tokio::spawn(jobs.join_all());
    let mut clean = Vec::new();
    while !hostile.is_finished() {
        let begin = Instant::now();
        // Where a user's processes are counted together, one may be refused; it is never turned about.
        match sh(&field, r#"cat "$1"; exit 0"#, AMPLE).await {
            Ok(exit) => {
                assert_eq!(exit.outcome, Outcome::Exited(0));
                clean.push(begin.elapsed());
            }
            Err(error) => assert!(matches!(error, Error::NotStarted { .. }), "{error:?}"),
        }
    }
    hostile.await.unwrap();
    clean.sort_unstable();
    // Of the others what else this machine does may be the reason.
    assert!(clean[clean.len() / 2] < QUICK, "{clean:?}");
    let Ok(field) = std::sync::Arc::try_unwrap(field) else { panic!("somebody holds the field") };
    field.end().await;
}

/// Whether Landlock holds back signals and abstract sockets here.
pub(crate) async fn has_scopes() -> bool {
    let place = Place::with(Policy { mode: Mode::Degraded, ..policy() });
    let found = place.candidate().settle(&place.jobs()).await.unwrap();
    found.layers().to_string().contains("with scopes")
}

/// Ends a test that needs layers which this machine has not, and says so.
pub(crate) async fn skipped_where_it_lacks(layers: &[Layer], test: &str) -> bool {
    let place = Place::with(Policy { mode: Mode::Degraded, ..policy() });
    let found = place.candidate().settle(&place.jobs()).await.unwrap();
    let lacking: Vec<_> = layers.iter().filter(|it| !found.layers().holds(**it)).collect();
    if !lacking.is_empty() {
        crate::place::skipped(test, &format!("no {lacking:?}: {}", found.layers()));
    }
    !lacking.is_empty()
}

/// Put together here: programs of these tests lie on disks, and have no marker in them.
fn marker() -> String {
    format!("plaintext-of-a-scan-killed-in-{}", std::process::id())
}

/// Whether a file below these directories has the marker in it.
fn is_anywhere(directories: &[&Path]) -> bool {
    let mut grep = outside("/bin/grep");
    grep.args(["-rqsF", "--exclude-dir=proc", &marker()]).args(directories);
    grep.stdout(Stdio::null()).status().unwrap().code() == Some(0)
}

#[tokio::test]
async fn whoever_is_killed_no_process_and_no_plaintext_is_left() {
    let field = Field::new(&ALL).await;
    if skipped_where_it_lacks(&ALL, "whoever_is_killed_no_process_and_no_plaintext_is_left").await {
        return;
    }
    let mut witness = Witness::at(&field.open);
    let mut job = field.place.job().await;
    job.media().unwrap().write_all(marker().as_bytes()).unwrap();
    let script = r#"exec 3> "$2"; cp "$1" copy; cp "$1" "$TMPDIR/copy"; echo on >&3; sleep 60"#;
    let command = crate::place::sh_with(&job, script, &witness.path);
    let searched = [field.place.root.as_path(), Path::new("/var/tmp"), Path::new("/dev/shm")];
    // The control: it is found where it is.
    let found = field.closed.join("found");
    fs::write(&found, marker()).unwrap();
    assert!(is_anywhere(&searched));
    fs::remove_file(&found).unwrap();

    let helpers_before = children();
    let (failed, ()) = tokio::join!(job.run(&command, AMPLE, 100), async {
        assert_eq!(witness.line().await, "on");
        assert!(!is_anywhere(&searched), "plaintext is on a disk");
        // Of this test's helpers the one that is this job's: the media is open in it by name.
        for helper in helpers_before.iter().filter(|pid| is_helper_of(**pid, job_name(&command))) {
            nix::sys::signal::kill(*helper, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    });
    assert!(matches!(failed, Err(Error::HelperGone)), "{failed:?}");
    witness.is_gone().await;
    job.close().await.unwrap();
    assert!(!is_anywhere(&searched));
    field.end().await;
}

fn job_name(command: &Command) -> &std::ffi::OsStr {
    let media = command.args.iter().find(|arg| arg.to_string_lossy().ends_with("/media")).unwrap();
    Path::new(media).parent().and_then(Path::file_name).unwrap()
}

fn children() -> Vec<nix::unistd::Pid> {
    let own = std::process::id();
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{own}/task")).unwrap() {
        let listed = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        all.extend(
            listed.split_whitespace().map(|pid| nix::unistd::Pid::from_raw(pid.parse().unwrap())),
        );
    }
    all
}

/// By the working directory of a process below it, which is the job's.
fn is_helper_of(pid: nix::unistd::Pid, job: &std::ffi::OsStr) -> bool {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().any(|child| {
        let below = fs::read_to_string(format!("/proc/{child}/task/{child}/children"));
        below.unwrap_or_default().split_whitespace().chain([child]).any(|pid| {
            fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|cwd| cwd.file_name().is_some_and(|name| name == job))
        })
    })
}

const ENVIRONMENT: &str = "MCS_SANDBOX_TEST_ENVIRONMENT";

/// Runs a test in an environment that has less to give, with a directory of its own to work in; what it said.
fn again_within(environment: &str, test: &str) -> String {
    let scratch = Place::new_root();
    fs::set_permissions(&scratch, Permissions::from_mode(0o777)).unwrap();
    let output = outside(program())
        .args(["within", environment])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env(ENVIRONMENT, environment)
        .env("TMPDIR", &scratch)
        .output()
        .unwrap();
    let _ = mcs_sandbox::remove_tree(&scratch);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    said
}

const ANOTHER: &str = "hostile::in_another_environment";

#[test]
fn with_dockers_limits_the_other_layers_hold() {
    assert!(again_within("docker", ANOTHER).contains("namespaces are off here"));
}

/// All of the table: the column of Landlock and seccomp is what holds in a container, too.
#[test]
fn with_dockers_limits_attacks_end_as_the_table_says() {
    again_within("docker", "hostile_table::attacks_on_landlock_and_seccomp");
}

#[test]
fn on_a_read_only_root_jobs_run_where_something_can_be_written_and_elsewhere_fail() {
    again_within("read-only", "hostile::on_a_read_only_root");
}

/// Not a test: a part of the one above, whose temporary directory alone can be written.
#[tokio::test]
#[ignore = "a part of another test"]
async fn on_a_read_only_root() {
    if std::env::var_os(ENVIRONMENT).is_none() {
        return;
    }
    for (plan, layers) in PLANS {
        let field = Field::new(layers).await;
        let exit = sh(&field, r#"cp "$1" "$TMPDIR/copy"; exit 7"#, AMPLE).await.unwrap();
        assert_eq!(exit.outcome, Outcome::Exited(7), "{plan}");
        let read_only = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(File::create(read_only.join("control")).is_err(), "the control");
        let job = field.place.sandbox.prepare(read_only, "media").await;
        match job {
            // Its files lie in memory.
            Ok(job) if layers.contains(&Layer::Namespaces) => job.close().await.unwrap(),
            Err(Error::NotStarted { step: mcs_sandbox::Step::Directory, source }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{plan}");
            }
            other => panic!("{plan}: {other:?}"),
        }
        field.end().await;
    }
}

/// A helper that cannot be started, or a program that cannot: an error of that job, and the next one runs.
#[test]
fn a_full_process_table_is_an_error_of_that_job_alone() {
    again_within("as-it-is", "hostile::in_a_full_process_table");
}

/// Not a test: a part of the one above, in a process whose limits are its own.
#[tokio::test]
#[ignore = "a part of another test"]
async fn in_a_full_process_table() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if std::env::var_os(ENVIRONMENT).is_none() {
        return;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    if is_root() {
        // Root's own are never counted: the script's user has all its processes. More than the limit has to be there already.
        let _another = Victim::new();
        let one = |mut policy: Policy| {
            policy.limits.processes = Some(1);
            policy
        };
        let field = Field::with(PLANS[1].1, one).await;
        let refused = sh(&field, "exit 0", AMPLE).await;
        assert!(
            matches!(refused, Err(Error::NotStarted { step: mcs_sandbox::Step::Execute, .. })),
            "{refused:?}"
        );
        return field.end().await;
    }
    for (plan, layers) in PLANS {
        let field = Field::new(layers).await;
        assert_eq!(sh(&field, "exit 0", AMPLE).await.unwrap().outcome, Outcome::Exited(0));
        setrlimit(Resource::RLIMIT_NPROC, 1, hard).unwrap();
        let refused = field.place.sandbox.prepare(&field.place.jobs(), "media").await;
        setrlimit(Resource::RLIMIT_NPROC, soft, hard).unwrap();
        let Err(Error::NoHelper { source, .. }) = refused else { panic!("{plan}: {refused:?}") };
        assert_eq!(source.raw_os_error(), Some(nix::libc::EAGAIN), "{plan}");
        let exit = sh(&field, "exit 5", AMPLE).await.unwrap();
        assert_eq!(exit.outcome, Outcome::Exited(5), "{plan}");
        field.end().await;
    }
}

#[test]
fn without_user_namespaces_the_other_layers_hold() {
    if is_root() {
        crate::place::skipped("without_user_namespaces_the_other_layers_hold", "root needs none");
        return;
    }
    assert!(again_within("no-user-namespaces", ANOTHER).contains("namespaces are off here"));
}

/// Not a test: a part of the two that call it.
#[tokio::test]
#[ignore = "a part of other tests"]
async fn in_another_environment() {
    if std::env::var_os(ENVIRONMENT).is_none() {
        return;
    }
    let field = Field::new(&[Layer::Landlock, Layer::Seccomp]).await;
    let settled = field.place.candidate().settle(&field.place.jobs()).await;
    if !is_root() && !has_scopes().await {
        // Nothing sets the program apart from the server.
        assert!(matches!(settled, Err(Error::TooWeak { .. })), "{settled:?}");
        field.end().await;
        println!("namespaces are off here");
        return;
    }
    let settled = settled.unwrap();
    assert!(!settled.layers().holds(Layer::Namespaces), "{}", settled.layers());
    assert!(settled.layers().holds(Layer::Landlock) && settled.layers().holds(Layer::Seccomp));
    let told = settled.layers().to_string();
    assert!(told.contains("namespaces: OFF: entering namespaces: "), "{told}");
    // A plan that had them is not run without.
    let stronger = field.place.candidate().untried(&ALL);
    let refused = stronger.prepare(&field.place.jobs(), "media").await;
    assert!(
        matches!(refused, Err(Error::NotStarted { step: mcs_sandbox::Step::Namespaces, .. })),
        "{refused:?}"
    );
    let victim = field.victim.id().to_string();
    let tcp = field.tcp.local_addr().unwrap().to_string();
    let mut attacks = vec![vec!["read", field.secret.to_str().unwrap()], vec!["tcp", &tcp]];
    if has_scopes().await {
        attacks.extend([vec!["kill", &victim], vec!["kill-everybody"]]);
    }
    for words in attacks {
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        assert!(!field.gets_through(&words).await, "{words:?}");
    }
    field.end().await;
    println!("namespaces are off here");
}

/// A file's name that nobody else has, for attacks that would make it.
pub(crate) fn fresh_name() -> String {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("mcs-hostile-{}-{number}", std::process::id())
}

/// A descriptor that is inherited, as a careless server would have one.
pub(crate) fn leak() -> impl Drop {
    struct Leak(i32);
    impl Drop for Leak {
        fn drop(&mut self) {
            let _ = nix::unistd::close(self.0);
        }
    }
    let null = File::open("/dev/null").unwrap();
    Leak(nix::fcntl::fcntl(&null, nix::fcntl::FcntlArg::F_DUPFD(800)).unwrap())
}

//! Runs the hostile program: targets of its attacks, the plans under test, and single attacks.

mod environments;
pub(crate) mod floods;
mod jobs;
mod killed_helper;
mod reachability;

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
use std::time::Duration;

use mcs_sandbox::{
    Command, Error, Exit, Job, Layer, Mode, Paths, Policy, ResourceLimits, Termination, User,
};

use crate::fixture::{Fixture, LONG_TIMEOUT, is_root, policy, unsandboxed};

/// User of the hostile program only, since resource usage is counted over all processes of a user.
const USER: User = User { uid: 61_237, gid: 61_238 };

/// The control, the layers available in a container, the layers of an old kernel, and all layers.
pub(crate) const PLANS: [(&str, &[Layer]); 4] = [
    ("base alone", &[]),
    ("Landlock, seccomp", &[Layer::Landlock, Layer::Seccomp]),
    ("namespaces, seccomp", &[Layer::Namespaces, Layer::Seccomp]),
    ("all", &ALL),
];

/// Layers of every current machine. Cgroups are tested separately, since few machines delegate one to tests.
pub(crate) const ALL: [Layer; 3] = [Layer::Namespaces, Layer::Landlock, Layer::Seccomp];

/// Returns the path where `cargo test` builds the example.
pub(crate) fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().join("examples/hostile")
}

/// Targets of attacks; all of them belong to the test.
pub(crate) struct Targets {
    pub(crate) fixture: Fixture,
    pub(crate) secret: PathBuf,
    /// World-writable directory that is not in the policy.
    pub(crate) closed: PathBuf,
    /// World-writable directory in the policy.
    pub(crate) open: PathBuf,
    pub(crate) tcp: TcpListener,
    pub(crate) udp: UdpSocket,
    pub(crate) abstract_name: String,
    pub(crate) socket: PathBuf,
    /// Directory with private files of the server: a token, a store and a socket with mode 0600.
    private: PathBuf,
    pub(crate) configured: PathBuf,
    pub(crate) datagrams: PathBuf,
    /// World-accessible shared memory.
    pub(crate) segment: Segment,
    /// Process of the script's user outside the sandbox.
    pub(crate) victim: Victim,
    pub(crate) other: Job,
    _listeners: Vec<UnixListener>,
    _receiver: UnixDatagram,
}

impl Targets {
    pub(crate) async fn new(layers: &[Layer]) -> Self {
        Self::with_policy(layers, |policy| policy).await
    }

    /// Creates targets with a changed policy.
    async fn with_policy(layers: &[Layer], change: impl FnOnce(Policy) -> Policy) -> Self {
        let root = Fixture::new_root();
        let [closed, open] =
            ["closed", "open"].map(|name| create_directory(root.join(name), 0o777));
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
        let (private, listener) = private_files(&root);
        listeners.push(listener);
        let datagrams = root.join("datagrams");
        let receiver = UnixDatagram::bind(&datagrams).unwrap();
        fs::set_permissions(&datagrams, Permissions::from_mode(0o666)).unwrap();
        let policy = change(Policy {
            user: is_root().then_some(USER),
            paths: Paths {
                read_only: vec![program()],
                writable: vec![open.clone()],
                unix_sockets: vec![configured.clone()],
            },
            limits: ResourceLimits {
                processes: Some(400),
                address_space: Some(512 << 20),
                open_files: Some(256),
                disk: 8 << 20,
                ..ResourceLimits::default()
            },
            ..policy()
        });
        let fixture = Fixture::at(root, policy, layers);
        let other = fixture.job().await;
        other.media().unwrap().write_all(b"plaintext").unwrap();
        Self {
            secret,
            closed,
            open,
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            abstract_name,
            socket,
            private,
            configured,
            datagrams,
            segment: Segment::new(),
            victim: Victim::new(),
            other,
            fixture,
            _listeners: listeners,
            _receiver: receiver,
        }
    }

    /// Returns the path of a private file.
    pub(crate) fn private(&self, name: &str) -> PathBuf {
        self.private.join(name)
    }

    /// Runs one attack in a job of its own and returns how the program ended.
    pub(crate) async fn run_attack(
        &self,
        words: &[String],
        limit: Duration,
    ) -> Result<Exit, Error> {
        let mut job = self.fixture.job().await;
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

    /// Whether the attack succeeded.
    pub(crate) async fn attack_succeeds(&self, words: &[String]) -> bool {
        match self.run_attack(words, LONG_TIMEOUT).await {
            Ok(Exit { termination: Termination::Exited(0), .. }) | Err(Error::HelperExited) => true,
            // 31 is SIGSYS, the filter's action for calls of another architecture.
            Ok(Exit {
                termination: Termination::Exited(10) | Termination::Signaled(31), ..
            }) => false,
            Ok(exit) => {
                panic!(
                    "{words:?}: {:?}: {}",
                    exit.termination,
                    String::from_utf8_lossy(&exit.stderr)
                )
            }
            Err(error) => panic!("{words:?}: {error:?}"),
        }
    }

    pub(crate) async fn end(self) {
        let Self { mut victim, other, fixture, .. } = self;
        assert!(victim.0.try_wait().unwrap().is_none(), "the victim was killed");
        other.close().await.unwrap();
        assert!(fixture.is_empty(), "a job's directory was left");
    }
}

fn create_directory(path: PathBuf, mode: u32) -> PathBuf {
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

/// Creates the directory with the private files of a server. Returns its path, and the socket in it.
fn private_files(root: &Path) -> (PathBuf, UnixListener) {
    let private = create_directory(root.join("private"), 0o711);
    for name in ["token", "store"] {
        fs::write(private.join(name), name).unwrap();
    }
    let listener = UnixListener::bind(private.join("admin.sock")).unwrap();
    for name in ["token", "store", "admin.sock"] {
        fs::set_permissions(private.join(name), Permissions::from_mode(0o600)).unwrap();
    }
    (private, listener)
}

/// Process outside the sandbox; killed when dropped.
pub(crate) struct Victim(Child);

impl Victim {
    fn new() -> Self {
        let mut command = unsandboxed("/bin/sleep");
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
        let output = unsandboxed(program()).arg("make-segment").output().unwrap();
        Self(crate::fixture::text(&output.stdout).trim().parse().unwrap())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let removed = unsandboxed(program()).args(["remove-segment", &self.0]).status();
        assert!(removed.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Runs a shell script in a job of its own.
async fn sh(targets: &Targets, script: &str, limit: Duration) -> Result<Exit, Error> {
    let mut job = targets.fixture.job().await;
    let exit = job.run(&crate::fixture::sh(&job, script), limit, 1 << 16).await;
    job.close().await.unwrap();
    exit
}

/// Whether Landlock restricts signals and abstract sockets on this machine.
pub(crate) async fn has_scopes() -> bool {
    let fixture = Fixture::with(Policy { mode: Mode::Degraded, ..policy() });
    let found = fixture.builder().probe(&fixture.jobs()).await.unwrap();
    found.layers().to_string().contains("with scopes")
}

/// Reports a test as skipped and returns `true` if this machine lacks one of `layers`.
pub(crate) async fn skip_without_layers(layers: &[Layer], test: &str) -> bool {
    let fixture = Fixture::with(Policy { mode: Mode::Degraded, ..policy() });
    let found = fixture.builder().probe(&fixture.jobs()).await.unwrap();
    let missing: Vec<_> =
        layers.iter().filter(|layer| !found.layers().is_active(**layer)).collect();
    if !missing.is_empty() {
        crate::fixture::report_skipped(test, &format!("no {missing:?}: {}", found.layers()));
    }
    !missing.is_empty()
}

/// Returns a unique file name for attacks that create files.
pub(crate) fn fresh_name() -> String {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("mcs-hostile-{}-{number}", std::process::id())
}

/// Opens a descriptor without close-on-exec, which child processes inherit.
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

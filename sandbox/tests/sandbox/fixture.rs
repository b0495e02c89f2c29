//! A directory of a test's own with a sandbox on it, and the few words that tests are written in.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mcs_sandbox::{Candidate, Command, Error, Exit, Job, Layer, Policy, Sandbox, User};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::time::timeout;

pub(crate) const HELPER: &str = env!("CARGO_BIN_EXE_mcs-sandbox");

/// Nobody's on any machine, so that per-user limits count these tests alone.
pub(crate) const USER: User = User { uid: 61_234, gid: 61_235 };

/// What a test gives a script that is to end by itself.
pub(crate) const AMPLE: Duration = Duration::from_secs(30);

/// Within this time every process of a script has to be gone.
pub(crate) const SOON: Duration = Duration::from_secs(1);

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// A policy that this process can enforce.
pub(crate) fn policy() -> Policy {
    Policy { user: is_root().then_some(USER), ..Policy::default() }
}

/// Says that a test, or a part of one, is skipped, and why; `./test` counts these.
pub(crate) fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(list) = std::env::var_os("SKIPPED_TESTS") {
        let mut list = File::options().append(true).open(list).unwrap();
        // In one write(2): others write at the same time.
        list.write_all(format!("sandbox: {test}: {why}\n").as_bytes()).unwrap();
    }
}

/// Ends a test that needs root, and says so. `return` where it is true.
pub(crate) fn skipped_without_root(test: &str) -> bool {
    if !is_root() {
        skipped(test, "needs root, to run scripts as another user");
    }
    !is_root()
}

pub(crate) struct Place {
    pub(crate) root: PathBuf,
    pub(crate) sandbox: Sandbox,
    policy: Policy,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(policy())
    }

    /// The base layer alone.
    pub(crate) fn with(policy: Policy) -> Self {
        Self::with_layers(policy, &[])
    }

    pub(crate) fn with_layers(policy: Policy, layers: &[Layer]) -> Self {
        Self::at(Self::new_root(), policy, layers)
    }

    /// A directory of its own for a test, with one for jobs in it.
    pub(crate) fn new_root() -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcs-sandbox-test-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir(&root).unwrap();
        // As the server's: let through, not listed.
        fs::set_permissions(&root, Permissions::from_mode(0o711)).unwrap();
        fs::create_dir(root.join("jobs")).unwrap();
        fs::set_permissions(root.join("jobs"), Permissions::from_mode(0o711)).unwrap();
        root
    }

    pub(crate) fn at(root: PathBuf, policy: Policy, layers: &[Layer]) -> Self {
        let candidate = Candidate::with_helper(Path::new(HELPER), policy.clone()).unwrap();
        Self { root, sandbox: candidate.untried(layers), policy }
    }

    /// The same sandbox, to be tried.
    pub(crate) fn candidate(&self) -> Candidate {
        Candidate::with_helper(Path::new(HELPER), self.policy.clone()).unwrap()
    }

    /// Where the jobs are, and nothing else.
    pub(crate) fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    pub(crate) async fn job(&self) -> Job {
        self.sandbox.prepare(&self.jobs(), "media").await.unwrap()
    }

    /// A job from beginning to end.
    pub(crate) async fn run(&self, command: &Command) -> Result<Exit, Error> {
        let mut job = self.job().await;
        let exit = job.run(command, AMPLE, 1 << 20).await;
        job.close().await.unwrap();
        assert!(self.is_empty(), "a job was left");
        exit
    }

    /// The same with a shell's script; `$1` is the media.
    pub(crate) async fn sh(&self, script: &str) -> Exit {
        let mut job = self.job().await;
        let exit = job.run(&sh(&job, script), AMPLE, 1 << 20).await.unwrap();
        job.close().await.unwrap();
        assert!(self.is_empty(), "a job was left");
        exit
    }

    pub(crate) fn is_empty(&self) -> bool {
        fs::read_dir(self.jobs()).unwrap().next().is_none()
    }

    /// For what happens in the background.
    pub(crate) async fn becomes_empty(&self) {
        until("the job's directory is removed", || self.is_empty()).await;
    }

    /// An executable file. Written by a child process: a descriptor open for writing here could be inherited by a process
    /// that another test is starting, and executing would fail with ETXTBSY.
    pub(crate) fn executable(&self, content: &str, mode: u32) -> PathBuf {
        let path = self.root.join("program");
        let status = outside("/bin/sh")
            .args(["-c", r#"printf %s "$2" > "$1""#, "sh"])
            .args([path.as_os_str(), content.as_ref()])
            .status()
            .unwrap();
        assert!(status.success());
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    pub(crate) fn witness(&self) -> Witness {
        Witness::at(&self.root)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = mcs_sandbox::remove_tree(&self.root);
    }
}

/// A shell's script on the media.
pub(crate) fn sh(job: &Job, script: &str) -> Command {
    sh_with(job, script, Path::new(""))
}

/// The same; `$2` is `path`.
pub(crate) fn sh_with(job: &Job, script: &str, path: &Path) -> Command {
    let args: [OsString; 5] =
        ["-c".into(), script.into(), "sh".into(), job.media_path().into(), path.into()];
    Command { program: "/bin/sh".into(), args: args.into() }
}

pub(crate) fn command(program: impl Into<PathBuf>) -> Command {
    Command { program: program.into(), args: Vec::new() }
}

/// A program outside the sandbox.
#[expect(clippy::disallowed_methods, reason = "tests start servers, helpers and controls")]
pub(crate) fn outside(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Waits for what has no event of its own.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + AMPLE;
    while !condition() {
        assert!(Instant::now() < deadline, "it never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The reading end of a FIFO.
pub(crate) struct Witness {
    pub(crate) path: PathBuf,
    reader: BufReader<pipe::Receiver>,
}

impl Witness {
    pub(crate) fn at(directory: &Path) -> Self {
        let path = directory.join("witness");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o622)).unwrap();
        let reader = BufReader::new(pipe::OpenOptions::new().open_receiver(&path).unwrap());
        Self { path, reader }
    }

    /// The first line that a script wrote.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(AMPLE, self.reader.read_line(&mut line)).await;
        assert_ne!(read.expect("the script came so far").unwrap(), 0, "it ended before");
        line.trim_end().to_owned()
    }

    /// That no process has it open any more.
    pub(crate) async fn is_gone(&mut self) {
        let mut rest = Vec::new();
        let gone = timeout(SOON, self.reader.read_to_end(&mut rest)).await;
        gone.expect("every process of the script is gone").unwrap();
    }
}

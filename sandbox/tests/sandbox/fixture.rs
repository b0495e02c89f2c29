//! Test fixture: a private directory with a sandbox, and helper functions of the tests.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mcs_sandbox::{Command, Error, Exit, Job, Layer, Policy, Sandbox, SandboxBuilder, User};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::time::timeout;

pub(crate) const HELPER: &str = env!("CARGO_BIN_EXE_mcs-sandbox");

/// Ids that are unused on real machines, so that per-user limits count processes of these tests only.
pub(crate) const USER: User = User { uid: 61_234, gid: 61_235 };

/// Time limit for scripts that are expected to end on their own.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// Time limit for all processes of a script to exit.
pub(crate) const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Returns a policy that this process can enforce.
pub(crate) fn policy() -> Policy {
    Policy { user: is_root().then_some(USER), ..Policy::default() }
}

/// Reports that a test or a part of it is skipped, and why; `./test` counts the reports.
pub(crate) fn report_skipped(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(list) = std::env::var_os("SKIPPED_TESTS") {
        let mut list = File::options().append(true).open(list).unwrap();
        // A single write(2): other tests append concurrently.
        list.write_all(format!("sandbox: {test}: {reason}\n").as_bytes()).unwrap();
    }
}

/// Reports a test as skipped and returns `true` if this process is not root.
pub(crate) fn skip_without_root(test: &str) -> bool {
    if !is_root() {
        report_skipped(test, "needs root to run scripts as another user");
    }
    !is_root()
}

pub(crate) struct Fixture {
    pub(crate) root: PathBuf,
    pub(crate) sandbox: Sandbox,
    policy: Policy,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(policy())
    }

    /// Creates a fixture with the base layer only.
    pub(crate) fn with(policy: Policy) -> Self {
        Self::with_layers(policy, &[])
    }

    pub(crate) fn with_layers(policy: Policy, layers: &[Layer]) -> Self {
        Self::at(Self::new_root(), policy, layers)
    }

    /// Creates a private directory that contains a directory for jobs.
    pub(crate) fn new_root() -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcs-sandbox-test-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir(&root).unwrap();
        // As with the server's directory: searchable, but not listable.
        fs::set_permissions(&root, Permissions::from_mode(0o711)).unwrap();
        fs::create_dir(root.join("jobs")).unwrap();
        fs::set_permissions(root.join("jobs"), Permissions::from_mode(0o711)).unwrap();
        root
    }

    pub(crate) fn at(root: PathBuf, policy: Policy, layers: &[Layer]) -> Self {
        Self::fitted(root, policy, layers, None)
    }

    /// Creates a fixture whose limits are fitted to this number of programs at once, if any.
    pub(crate) fn fitted(
        root: PathBuf,
        policy: Policy,
        layers: &[Layer],
        programs: Option<usize>,
    ) -> Self {
        let builder = SandboxBuilder::with_helper(Path::new(HELPER), policy.clone()).unwrap();
        let builder = programs.into_iter().fold(builder, SandboxBuilder::for_programs);
        Self { root, sandbox: builder.build_unprobed(layers).unwrap(), policy }
    }

    /// Returns a builder of the same sandbox, for probing.
    pub(crate) fn builder(&self) -> SandboxBuilder {
        SandboxBuilder::with_helper(Path::new(HELPER), self.policy.clone()).unwrap()
    }

    /// Returns the directory that contains the jobs.
    pub(crate) fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    pub(crate) async fn job(&self) -> Job {
        self.sandbox.prepare(&self.jobs(), "media").await.unwrap()
    }

    /// Runs a command in a job of its own.
    pub(crate) async fn run(&self, command: &Command) -> Result<Exit, Error> {
        let mut job = self.job().await;
        let exit = job.run(command, LONG_TIMEOUT, 1 << 20).await;
        job.close().await.unwrap();
        assert!(self.is_empty(), "a job's directory was left");
        exit
    }

    /// Runs a shell script in a job of its own; `$1` is the media's path.
    pub(crate) async fn sh(&self, script: &str) -> Exit {
        let mut job = self.job().await;
        let exit = job.run(&sh(&job, script), LONG_TIMEOUT, 1 << 20).await.unwrap();
        job.close().await.unwrap();
        assert!(self.is_empty(), "a job's directory was left");
        exit
    }

    pub(crate) fn is_empty(&self) -> bool {
        fs::read_dir(self.jobs()).unwrap().next().is_none()
    }

    /// Waits until a background cleanup has removed all jobs.
    pub(crate) async fn wait_until_empty(&self) {
        wait_until("the job's directory is removed", || self.is_empty()).await;
    }

    /// Creates an executable file. A child process writes it: a descriptor open for writing in this process could be
    /// inherited by a process that a concurrent test starts, and executing the file would fail with ETXTBSY.
    pub(crate) fn executable(&self, content: &str, mode: u32) -> PathBuf {
        let path = self.root.join("program");
        let status = unsandboxed("/bin/sh")
            .args(["-c", r#"printf %s "$2" > "$1""#, "sh"])
            .args([path.as_os_str(), content.as_ref()])
            .status()
            .unwrap();
        assert!(status.success());
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    pub(crate) fn fifo(&self) -> ProcessFifo {
        ProcessFifo::at(&self.root)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = mcs_sandbox::remove_tree(&self.root);
    }
}

/// Returns a command that runs a shell script; `$1` is the media's path.
pub(crate) fn sh(job: &Job, script: &str) -> Command {
    sh_with(job, script, Path::new(""))
}

/// Returns a command that runs a shell script; `$1` is the media's path, `$2` is `path`.
pub(crate) fn sh_with(job: &Job, script: &str, path: &Path) -> Command {
    let args: [OsString; 5] =
        ["-c".into(), script.into(), "sh".into(), job.media_path().into(), path.into()];
    Command { program: "/bin/sh".into(), args: args.into() }
}

pub(crate) fn command(program: impl Into<PathBuf>) -> Command {
    Command { program: program.into(), args: Vec::new() }
}

/// Returns a command that runs a program outside the sandbox.
#[expect(clippy::disallowed_methods, reason = "tests start servers, helpers and controls")]
pub(crate) fn unsandboxed(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Polls until `condition` is true, for conditions without an event.
pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG_TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Reading end of a FIFO that a script keeps open. A line shows progress of the script; end-of-file shows that the last
/// process that had the FIFO open has exited.
pub(crate) struct ProcessFifo {
    pub(crate) path: PathBuf,
    reader: BufReader<pipe::Receiver>,
}

impl ProcessFifo {
    pub(crate) fn at(directory: &Path) -> Self {
        let path = directory.join("fifo");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o622)).unwrap();
        let reader = BufReader::new(pipe::OpenOptions::new().open_receiver(&path).unwrap());
        Self { path, reader }
    }

    /// Reads the first line that a script wrote.
    pub(crate) async fn read_line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(LONG_TIMEOUT, self.reader.read_line(&mut line)).await;
        assert_ne!(
            read.expect("script wrote a line in time").unwrap(),
            0,
            "script ended without writing a line"
        );
        line.trim_end().to_owned()
    }

    /// Waits until no process has the FIFO open.
    pub(crate) async fn wait_closed(&mut self) {
        self.wait_closed_within(EXIT_TIMEOUT).await;
    }

    /// Waits until no process has the FIFO open, at most this long: many processes take longer to exit.
    pub(crate) async fn wait_closed_within(&mut self, limit: Duration) {
        let mut rest = Vec::new();
        let closed = timeout(limit, self.reader.read_to_end(&mut rest)).await;
        closed.expect("all processes of the script exited in time").unwrap();
    }
}

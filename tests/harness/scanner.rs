//! Runs the real program in its own directory with a scan script written by the test.
#![expect(
    clippy::disallowed_methods,
    reason = "the program under test is started like an operator would start it"
)]

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::Instant,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tempfile::TempDir;

use super::{MockHomeserver, TEST_TIMEOUT, TestClient};

/// Path of the program built for these tests.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_matrix-content-scanner");

/// Running program. Killed when dropped, and its directory removed.
#[derive(Debug)]
pub struct ScannerProcess {
    pub client: TestClient,
    /// Host and port.
    pub address: String,
    pub dir: ScannerDir,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// Working directory of a program: configuration, scan script, and a directory that scripts can write to.
#[derive(Debug)]
pub struct ScannerDir {
    directory: TempDir,
}

/// Configures and starts the program.
#[derive(Debug)]
pub struct ScannerBuilder {
    dir: ScannerDir,
    config: String,
    homeserver: Option<String>,
    launch: LaunchOptions,
}

/// Wrapper command, environment and standard input of the program.
#[derive(Clone, Debug, Default)]
pub struct LaunchOptions {
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
    stdin: Option<Arc<OwnedFd>>,
}

impl ScannerProcess {
    /// Starts the program for this homeserver with this `sh` scan script. In the script, `$1` is the
    /// file to scan, and `$MARKS` a directory that it may write to.
    pub async fn start(homeserver: &MockHomeserver, script: &str) -> Self {
        ScannerBuilder::new(script).homeserver(homeserver).start().await
    }

    /// Returns the program's process ID.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("program is running");
    }

    /// Waits until the program has exited.
    pub async fn wait_for_exit(&mut self) -> ExitStatus {
        let end = Instant::now() + TEST_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for child") {
                return status;
            }
            assert!(Instant::now() < end, "program does not exit");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Returns the log so far, one JSON object a line.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until `text` occurs at least `times` times in the log.
    pub async fn wait_for_log(&self, text: &str, times: usize) {
        super::wait_until(text, || self.log().matches(text).count() >= times).await;
    }

    /// Returns a client of the operations listener.
    pub async fn operations_client(&self) -> TestClient {
        const LISTENING: &str = "serving metrics and health";
        self.wait_for_log(LISTENING, 1).await;
        let log = self.log();
        let line = log.lines().find(|line| line.contains(LISTENING)).expect("logged");
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        TestClient::new(line["address"].as_str().expect("address is a string"))
    }

    /// Peak resident memory in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        let kibibytes = line.trim().strip_suffix(" kB").expect("kB");
        kibibytes.parse::<u64>().expect("number") * 1024
    }

    /// Number of sandbox helper processes. Each job has one, apart from those of evaluators.
    pub fn helper_count(&self) -> usize {
        let evaluators = self.evaluators().len();
        children(self.pid()).len().saturating_sub(evaluators)
    }

    /// Returns the resident evaluators, without the children that they fork. Each has a helper.
    pub fn evaluators(&self) -> Vec<Pid> {
        let below = |pid: Pid| children(pid).into_iter();
        // In a pid namespace, the evaluator is a child of the first process.
        let of_helper = |helper| {
            let first = below(helper).find(|pid| is_evaluator(*pid));
            first.or_else(|| below(helper).flat_map(children).find(|pid| is_evaluator(*pid)))
        };
        below(self.pid()).filter_map(of_helper).collect()
    }

    /// Returns whether no job has a directory, a helper or a process left.
    pub fn is_idle(&self) -> bool {
        let evaluators = self.evaluators();
        self.dir.jobs().len() <= evaluators.len()
            && self.helper_count() == 0
            && self.dir.processes().iter().all(|pid| evaluators.contains(pid))
    }

    /// Waits until [`Self::is_idle`] holds.
    pub async fn wait_until_idle(&self) {
        super::wait_until("all jobs are cleaned up", || self.is_idle()).await;
    }
}

impl Drop for ScannerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- program log ---\n{}", self.log());
        }
    }
}

impl ScannerDir {
    fn new(script: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("mcstest-").tempdir();
        let dir = Self { directory: directory.expect("create directory") };
        // Searchable by others: when the tests run as root, scripts run as another user.
        dir.make_directory("", 0o755);
        dir.make_directory("temp", 0o755);
        dir.make_directory("marks", 0o777);
        dir.write_script("script.sh", script);
        dir
    }

    /// Returns the path of `name` in this directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes an executable `sh` script with `$MARKS` set.
    pub fn write_script(&self, name: &str, script: &str) -> PathBuf {
        let marks = self.path("marks");
        self.write_executable(name, &format!("#!/bin/sh\nMARKS={}\n{script}\n", marks.display()))
    }

    /// Writes an executable file.
    pub fn write_executable(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        // Written elsewhere and renamed, so that a partly written file is never executed.
        let temporary = self.path("fresh");
        fs::write(&temporary, content).expect("write script");
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::rename(&temporary, &path).expect("rename");
        path
    }

    /// Returns the current job directories, of all runs of the program.
    pub fn jobs(&self) -> Vec<PathBuf> {
        let runs = list_dir(&self.path("temp"));
        let is_job = |path: &PathBuf| !path.ends_with("rules");
        runs.iter().flat_map(|run| list_dir(run)).filter(is_job).collect()
    }

    /// Returns the current script processes, of all runs of the program. They are found by the job
    /// directory in their environment.
    pub fn processes(&self) -> Vec<Pid> {
        let job_path = format!("={}/mcs-", self.path("temp").display()).into_bytes();
        let is_script = |process: &PathBuf| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.windows(job_path.len()).any(|part| part == job_path)
        };
        list_dir(Path::new("/proc"))
            .iter()
            .filter(|process| is_script(process))
            .filter_map(|process| process.file_name()?.to_str()?.parse().ok())
            .map(Pid::from_raw)
            .collect()
    }

    /// Number of lines that scripts have written to a file in `$MARKS`.
    pub fn mark_count(&self, name: &str) -> usize {
        self.read_mark(name).lines().count()
    }

    /// Content of a file in `$MARKS`; empty if it does not exist.
    pub fn read_mark(&self, name: &str) -> String {
        fs::read_to_string(self.path("marks").join(name)).unwrap_or_default()
    }

    /// Creates a FIFO in `$MARKS` on which a script can block until the test calls
    /// [`ScannerDir::release_fifo`].
    pub fn make_fifo(&self, name: &str) {
        let path = self.path("marks").join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666))
            .expect("create FIFO");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("chmod");
    }

    /// Unblocks one script that reads, or will read, from this FIFO.
    pub async fn release_fifo(&self, name: &str) {
        let path = self.path("marks").join(name);
        // Opening a FIFO blocks until a script opens the other end. This uses a separate thread
        // because a runtime would wait for its blocking threads even after the test has failed.
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || sender.send(fs::write(path, "go\n")));
        let written = tokio::time::timeout(TEST_TIMEOUT, receiver).await;
        written.expect("no script reads the FIFO").expect("no panic").expect("write to FIFO");
    }

    fn make_directory(&self, name: &str, mode: u32) {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("create directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
}

impl ScannerBuilder {
    /// Creates a builder with this `sh` scan script.
    pub fn new(script: &str) -> Self {
        Self {
            dir: ScannerDir::new(script),
            config: String::new(),
            homeserver: None,
            launch: LaunchOptions::default(),
        }
    }

    /// Uses this homeserver.
    pub fn homeserver(mut self, homeserver: &MockHomeserver) -> Self {
        self.homeserver = Some(homeserver.url());
        self
    }

    /// Configures no homeserver, so that the program discovers it from the media's server name.
    pub fn without_homeserver(mut self) -> Self {
        self.homeserver = None;
        self
    }

    /// Adds TOML lines of the form `section.key = value`. They override the defaults of the tests.
    pub fn config(mut self, lines: &str) -> Self {
        writeln!(self.config, "{lines}").expect("writing to a String cannot fail");
        self
    }

    /// Uses a homeserver at this base URL.
    pub fn base_url(mut self, url: &str) -> Self {
        self.homeserver = Some(url.to_owned());
        self
    }

    /// Starts the program through this command, which receives the program and its arguments as its
    /// last arguments and must `exec` it.
    pub fn wrapped_by(mut self, wrapper: &[&str]) -> Self {
        self.launch.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// Passes a socket as descriptor 3, like systemd socket activation.
    pub fn with_socket(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.launch.stdin = Some(Arc::new(socket.into()));
        let pass =
            "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=${LISTEN_FDS:-1}; exec \"$@\"";
        self.wrapped_by(&["/bin/sh", "-c", pass, "sh"])
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.launch.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the directory, for files that must exist before the start.
    pub fn dir(&self) -> &ScannerDir {
        &self.dir
    }

    /// Returns the directory, for tests that write the configuration themselves.
    pub fn into_dir(self) -> ScannerDir {
        self.dir
    }

    /// Writes the configuration; gives its path.
    pub fn write_config(&self) -> PathBuf {
        let mut table = toml::Table::new();
        let mut merge = |text: &str| {
            let lines: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
            overlay(&mut table, lines);
        };
        merge(
            r#"
            web.host = "127.0.0.1"
            web.port = 0
            scan.script = "script.sh"
            scan.temp_directory = "temp"
            scan.canary = "off"
            sandbox.writable_paths = ["marks"]
            crypto.request_secret_path = "request_secret"
            crypto.generate = true
            log.format = "json"
            operations.port = 0
            log.level = "debug,hyper=info,hyper_util=info,reqwest=info"
            "#,
        );
        if let Some(url) = &self.homeserver {
            merge(&format!("download.base_homeserver_url = \"{url}\""));
        }
        merge(&self.config);
        let path = self.dir.path("config.toml");
        fs::write(&path, table.to_string()).expect("write configuration");
        path
    }

    /// Starts the program and waits until it listens.
    pub async fn start(self) -> ScannerProcess {
        let config = self.write_config();
        start(self.dir, &config, &self.launch).await
    }

    /// Runs the program to completion with these arguments. Returns exit code, stdout and stderr.
    pub fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = wrapped(&self.launch);
        command.arg("-c").arg(self.write_config()).args(arguments);
        run_command(command)
    }

    /// Starts the server, expecting it to exit by itself. Returns exit code and stderr.
    pub fn run_to_exit(self) -> (Option<i32>, String) {
        let (code, _, stderr) = self.run(&[]);
        (code, stderr)
    }
}

/// Starts the program in a directory that was used before, like after a crash.
pub async fn restart(dir: ScannerDir) -> ScannerProcess {
    let config = dir.path("config.toml");
    start(dir, &config, &LaunchOptions::default()).await
}

impl ScannerProcess {
    /// Kills the program with SIGKILL. Returns its directory.
    pub fn kill(mut self) -> ScannerDir {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait for child");
        self.into_dir()
    }

    /// Stops the program with SIGTERM. Returns its directory.
    pub async fn stop(mut self) -> ScannerDir {
        self.signal(Signal::SIGTERM);
        assert!(self.wait_for_exit().await.success(), "{}", self.log());
        self.into_dir()
    }

    fn into_dir(mut self) -> ScannerDir {
        std::mem::replace(&mut self.dir, ScannerDir { directory: TempDir::new().unwrap() })
    }
}

async fn start(dir: ScannerDir, config: &Path, launch: &LaunchOptions) -> ScannerProcess {
    let mut child = wrapped(launch)
        .arg("-c")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start program");
    let log = Arc::new(Mutex::new(Vec::new()));
    let (sender, receiver) = mpsc::channel();
    let lines = BufReader::new(child.stderr.take().expect("piped"));
    let shared_log = Arc::clone(&log);
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            if let Some(address) = address_in(&line) {
                let _ = sender.send(address);
            }
            shared_log.lock().unwrap().push(line);
        }
    });
    let address = tokio::task::spawn_blocking(move || receiver.recv_timeout(TEST_TIMEOUT)).await;
    let Ok(Ok(address)) = address else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("program does not listen:\n{}", log.lock().unwrap().join("\n"));
    };
    ScannerProcess { client: TestClient::new(&address), address, dir, child, log }
}

/// Runs the program to completion with these arguments and variables. Returns exit code, stdout and stderr.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = command();
    command.args(arguments).envs(environment.iter().copied());
    run_command(command)
}

fn run_command(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("run program");
    (
        output.status.code(),
        String::from_utf8(output.stdout).expect("UTF-8"),
        String::from_utf8(output.stderr).expect("UTF-8"),
    )
}

/// Returns a command for the program with a clean environment.
pub fn command() -> Command {
    wrapped(&LaunchOptions::default())
}

fn wrapped(launch: &LaunchOptions) -> Command {
    let mut command_line = launch.wrapper.iter().map(String::as_str).chain([PROGRAM]);
    let mut command = Command::new(command_line.next().unwrap_or(PROGRAM));
    command.args(command_line);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(match &launch.stdin {
        Some(socket) => socket.try_clone().expect("duplicate descriptor").into(),
        None => Stdio::null(),
    });
    command
}

/// Returns whether the tests run as root. Scripts then run as another user.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Returns the direct children of a process.
pub fn children(pid: Pid) -> Vec<Pid> {
    let tasks = list_dir(Path::new(&format!("/proc/{pid}/task")));
    let of_task = |task: &PathBuf| fs::read_to_string(task.join("children")).unwrap_or_default();
    let all = tasks.iter().map(of_task).collect::<Vec<_>>().join(" ");
    all.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

fn is_evaluator(pid: Pid) -> bool {
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command_line.split(|byte| *byte == 0).nth(1) == Some(b"evaluate-resident")
}

/// Lists a directory. Returns an empty list if the directory cannot be read.
pub fn list_dir(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn address_in(line: &str) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_listening = json["message"] == "listening";
    is_listening.then(|| json["address"].as_str().unwrap_or_default().to_owned())
}

fn overlay(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(value)) => overlay(below, value),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

//! The real program, in a directory of its own, with a script that a test writes.
#![expect(
    clippy::disallowed_methods,
    reason = "the program under test is started as a person would start it"
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

use super::{Client, Homeserver, PATIENCE};

/// The program, as built for these tests.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_matrix-content-scanner");

/// A running program; killed when dropped, and its directory removed.
#[derive(Debug)]
pub struct Scanner {
    pub client: Client,
    /// Host and port.
    pub address: String,
    pub place: Place,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// Where a program runs: its configuration, its script, and a directory that scripts can write to.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
}

/// A program to be started.
#[derive(Debug)]
pub struct Builder {
    place: Place,
    config: String,
    homeserver: Option<String>,
    launch: Launch,
}

/// How a program is started.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
    stdin: Option<Arc<OwnedFd>>,
}

impl Scanner {
    /// A program in front of this homeserver, with this `sh` script as scan script. In it, `$1` is
    /// the file, and `$MARKS` a directory that it may write to.
    pub async fn start(homeserver: &Homeserver, script: &str) -> Self {
        Builder::new(script).homeserver(homeserver).start().await
    }

    /// The program's process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the program is alive");
    }

    /// Waits for the program's end.
    pub async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < end, "the program does not end");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// What it has logged so far, a JSON object a line.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until it has logged this so many times.
    pub async fn logged(&self, text: &str, times: usize) {
        super::until(text, || self.log().matches(text).count() >= times).await;
    }

    /// A client of the operator's listener.
    pub async fn operations(&self) -> Client {
        const OPEN: &str = "metrics and health are here";
        self.logged(OPEN, 1).await;
        let log = self.log();
        let line = log.lines().find(|line| line.contains(OPEN)).expect("logged");
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        Client::new(line["address"].as_str().expect("an address"))
    }

    /// The most memory that it has held at a time, bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("alive");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kibibytes = line.trim().strip_suffix(" kB").expect("kB");
        kibibytes.parse::<u64>().expect("a number") * 1024
    }

    /// How many jobs there are: each has a helper.
    pub fn helpers(&self) -> usize {
        children(self.pid()).len()
    }

    /// Whether nothing of any job is left: no directory, no helper, no process of a script.
    pub fn is_idle(&self) -> bool {
        self.place.jobs().is_empty() && self.helpers() == 0 && self.place.processes().is_empty()
    }

    /// Waits until nothing of any job is left.
    pub async fn idle(&self) {
        super::until("nothing of a job is left", || self.is_idle()).await;
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the program's log ---\n{}", self.log());
        }
    }
}

impl Place {
    fn new(script: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("mcstest-").tempdir().expect("a directory");
        let place = Self { directory };
        // Passable: when the tests run as root, scripts run as another user.
        place.make_directory("", 0o755);
        place.make_directory("temp", 0o755);
        place.make_directory("marks", 0o777);
        place.write_script("script.sh", script);
        place
    }

    /// A path in it.
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
        // Renamed into place, so that no program is ever run while it is being written.
        let fresh = self.path("fresh");
        fs::write(&fresh, content).expect("a script");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).expect("executable");
        fs::rename(&fresh, &path).expect("renamed");
        path
    }

    /// The directories of jobs at the moment, of all runs of the program.
    pub fn jobs(&self) -> Vec<PathBuf> {
        let runs = entries(&self.path("temp"));
        let is_job = |path: &PathBuf| !path.ends_with("rules");
        runs.iter().flat_map(|run| entries(run)).filter(is_job).collect()
    }

    /// The processes of scripts at the moment, of all runs of the program: each has its job's
    /// directory in its environment.
    pub fn processes(&self) -> Vec<Pid> {
        let ours = format!("={}/mcs-", self.path("temp").display()).into_bytes();
        let is_ours = |process: &PathBuf| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.windows(ours.len()).any(|part| part == ours)
        };
        entries(Path::new("/proc"))
            .iter()
            .filter(|process| is_ours(process))
            .filter_map(|process| process.file_name()?.to_str()?.parse().ok())
            .map(Pid::from_raw)
            .collect()
    }

    /// How many lines a script has written to this mark.
    pub fn marks(&self, name: &str) -> usize {
        self.mark(name).lines().count()
    }

    /// What a script has written to this mark.
    pub fn mark(&self, name: &str) -> String {
        fs::read_to_string(self.path("marks").join(name)).unwrap_or_default()
    }

    /// Makes a FIFO in the directory of marks, for a script to wait at: it goes on when the test calls
    /// [`Place::let_go`].
    pub fn make_fifo(&self, name: &str) {
        let path = self.path("marks").join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666))
            .expect("a fifo");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("for scripts");
    }

    /// Lets one script go on that reads from this FIFO, or will.
    pub async fn let_go(&self, name: &str) {
        let path = self.path("marks").join(name);
        // Opening waits for the script to open its end: on a thread of its own, since a runtime would
        // wait for that thread even after the test has failed.
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || tell.send(fs::write(path, "go\n")));
        let opened = tokio::time::timeout(PATIENCE, told).await.expect("a script at the fifo");
        opened.expect("no panic").expect("written");
    }

    fn make_directory(&self, name: &str, mode: u32) {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    }
}

impl Builder {
    /// A program with this `sh` script.
    pub fn new(script: &str) -> Self {
        Self {
            place: Place::new(script),
            config: String::new(),
            homeserver: None,
            launch: Launch::default(),
        }
    }

    /// In front of this homeserver.
    pub fn homeserver(mut self, homeserver: &Homeserver) -> Self {
        self.homeserver = Some(homeserver.url());
        self
    }

    /// Without a homeserver: media is fetched from where its name says.
    pub fn discovering(mut self) -> Self {
        self.homeserver = None;
        self
    }

    /// With these lines of configuration, `section.key = value` each, in TOML. They replace what
    /// tests begin with.
    pub fn config(mut self, lines: &str) -> Self {
        writeln!(self.config, "{lines}").expect("a String takes all");
        self
    }

    /// In front of a server at this base URL.
    pub fn base_url(mut self, url: &str) -> Self {
        self.homeserver = Some(url.to_owned());
        self
    }

    /// Started by this command, which gets the program and its arguments as its last ones and
    /// becomes it.
    pub fn inside(mut self, wrapper: &[&str]) -> Self {
        self.launch.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// With a socket passed to it, as systemd does it: as descriptor 3.
    pub fn passed(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.launch.stdin = Some(Arc::new(socket.into()));
        let pass =
            "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=${LISTEN_FDS:-1}; exec \"$@\"";
        self.inside(&["/bin/sh", "-c", pass, "sh"])
    }

    /// With this variable in its environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.launch.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its place, to put something there first.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its place, for a configuration that the test writes itself.
    pub fn into_place(self) -> Place {
        self.place
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
        let path = self.place.path("config.toml");
        fs::write(&path, table.to_string()).expect("a configuration");
        path
    }

    /// Starts it and waits until it listens.
    pub async fn start(self) -> Scanner {
        let config = self.write_config();
        start(self.place, &config, &self.launch).await
    }

    /// Runs it to its end with these arguments: exit code, stdout, stderr.
    pub fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = wrapped(&self.launch);
        command.arg("-c").arg(self.write_config()).args(arguments);
        ended(command)
    }

    /// Starts it where it will not listen; gives its exit code and what it said.
    pub fn fails(self) -> (Option<i32>, String) {
        let (code, _, stderr) = self.run(&[]);
        (code, stderr)
    }
}

/// Starts the program in a place that has been used before, as after a crash.
pub async fn start_again(place: Place) -> Scanner {
    let config = place.path("config.toml");
    start(place, &config, &Launch::default()).await
}

impl Scanner {
    /// Kills the program as `kill -9` does; its place stays.
    pub fn kill(mut self) -> Place {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
        let nowhere = Place { directory: TempDir::new().expect("a directory") };
        std::mem::replace(&mut self.place, nowhere)
    }
}

async fn start(place: Place, config: &Path, launch: &Launch) -> Scanner {
    let mut child = wrapped(launch)
        .arg("-c")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let log = Arc::new(Mutex::new(Vec::new()));
    let (tell, told) = mpsc::channel();
    let lines = BufReader::new(child.stderr.take().expect("piped"));
    let kept = Arc::clone(&log);
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            if let Some(address) = address_in(&line) {
                let _ = tell.send(address);
            }
            kept.lock().unwrap().push(line);
        }
    });
    let address = tokio::task::spawn_blocking(move || told.recv_timeout(PATIENCE)).await;
    let Ok(Ok(address)) = address else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("the program does not listen:\n{}", log.lock().unwrap().join("\n"));
    };
    Scanner { client: Client::new(&address), address, place, child, log }
}

/// Runs the program to its end with these arguments and variables: exit code, stdout, stderr.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = command();
    command.args(arguments).envs(environment.iter().copied());
    ended(command)
}

fn ended(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("the program runs");
    (
        output.status.code(),
        String::from_utf8(output.stdout).expect("text"),
        String::from_utf8(output.stderr).expect("text"),
    )
}

/// The program with an environment of its own.
pub fn command() -> Command {
    wrapped(&Launch::default())
}

fn wrapped(launch: &Launch) -> Command {
    let mut words = launch.wrapper.iter().map(String::as_str).chain([PROGRAM]);
    let mut command = Command::new(words.next().unwrap_or(PROGRAM));
    command.args(words);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(match &launch.stdin {
        Some(socket) => socket.try_clone().expect("a descriptor").into(),
        None => Stdio::null(),
    });
    command
}

/// Whether the tests run as root, so that scripts run as another user.
pub fn as_root() -> bool {
    geteuid().is_root()
}

/// The direct children of a process.
pub fn children(pid: Pid) -> Vec<Pid> {
    let tasks = entries(Path::new(&format!("/proc/{pid}/task")));
    let of_task = |task: &PathBuf| fs::read_to_string(task.join("children")).unwrap_or_default();
    let all = tasks.iter().map(of_task).collect::<Vec<_>>().join(" ");
    all.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// What lies in a directory; nothing where it cannot be read.
pub fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn address_in(line: &str) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(line).ok()?;
    let listening = json["message"] == "listening";
    listening.then(|| json["address"].as_str().unwrap_or_default().to_owned())
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

//! Programs under measurement: the service, nginx as homeserver and as limit, and the axum baseline.
//!
//! Each program is terminated with all its children when dropped, and leaves no files outside of the benchmark's
//! directory.

use std::{
    fs::{self, File, Permissions},
    net::{SocketAddr, TcpListener},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use mcs_sandbox::User;
use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    time::{clock_getcpuclockid, clock_gettime},
    unistd::{Pid, geteuid},
};
use tokio::{net::TcpStream, time::sleep};

use crate::load::{ExpectedBody, LoadConnection, get};

/// Directory of the release programs, built by `benches/run` like the packages.
pub(crate) const PROGRAMS: &str = "target/package";

/// The shipped configuration.
const SHIPPED_CONFIG: &str = "config/default.toml";

/// Time for a program to start listening.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// User that scripts run as if this process is root. IDs that are unlikely to be in use.
pub(crate) const USER: User = User { uid: 61_234, gid: 61_235 };

/// Running server process.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl ServerProcess {
    async fn start(command: &mut Command, port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // Its own process group: Ctrl-C reaches only this process, and the whole group is killed at the end.
        let child = command.stdin(Stdio::null()).process_group(0).spawn().unwrap();
        let mut process = Self { child, address };
        let end = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).await.is_err() {
            assert!(process.child.try_wait().unwrap().is_none(), "exited: {command:?}");
            assert!(Instant::now() < end, "does not listen: {command:?}");
            sleep(Duration::from_micros(500)).await;
        }
        process
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Processor time of the process without its children.
    pub(crate) fn cpu_time(&self) -> Duration {
        let clock = clock_getcpuclockid(self.pid()).unwrap();
        clock_gettime(clock).unwrap().into()
    }

    /// Resident memory in bytes: current (`VmRSS`) or peak (`VmHWM`).
    pub(crate) fn memory(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kibibytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kibibytes.parse::<f64>().unwrap() * 1024.0
    }

    /// Number of open descriptors. `None` if reading them requires root.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?.count())
    }

    /// Number of running child processes.
    pub(crate) fn children(&self) -> usize {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let children_of =
            |path: PathBuf| fs::read_to_string(path.join("children")).unwrap_or_default();
        threads.map(|thread| children_of(thread.unwrap().path()).split_whitespace().count()).sum()
    }

    /// Resets the peak of resident memory: proc(5), `clear_refs`.
    pub(crate) fn reset_peak_memory(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // On SIGTERM, the program terminates its workers and sandboxes.
        let _gone = kill(self.pid(), Signal::SIGTERM);
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        for _ in 0..500 {
            if waitid(Id::Pid(self.pid()), flags) != Ok(WaitStatus::StillAlive) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Workers survive a killed nginx. Kills the group before the process is reaped, because its ID may be reused then.
        let _gone = killpg(self.pid(), Signal::SIGKILL);
        let _status = self.child.wait();
    }
}

/// Runs a program to completion. Kills it if the future is dropped.
pub(crate) async fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    command.output().await.unwrap()
}

/// Runs a program and returns its standard output. Panics if the program fails.
pub(crate) async fn output(program: &Path, arguments: &[&str]) -> String {
    let output = run(program, arguments).await;
    assert!(output.status.success(), "{}: {}", program.display(), output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Starts nginx, which serves the directory `files` as a homeserver and below `/static/`, and a minimal response at
/// `/small`.
pub(crate) async fn nginx(dir: &Path) -> ServerProcess {
    let port = free_port();
    let root = dir.display();
    let user = if geteuid().is_root() { "user root;" } else { "" };
    let config = format!(
        "daemon off; worker_processes auto; {user} pid {root}/nginx.pid; error_log stderr warn;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
            open_file_cache max=100000 inactive=1h; open_file_cache_valid 1h;
            client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
            uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
            default_type image/png;
            server {{
                listen 127.0.0.1:{port};
                location /static/ {{ alias {root}/files/; }}
                location = /small {{ return 200 ok; }}
                # tcp_nopush delays responses of 1 MiB by 40 ms in nearly half of the cases.
                location ~ ^/_matrix/media/v3/download/[^/]+/(?<name>[^/]+)$ {{ tcp_nopush off; alias {root}/files/$name; }}
            }}
        }}"
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-e").arg("stderr").arg("-p").arg(dir).arg("-c").arg(&path);
    ServerProcess::start(&mut command, port).await
}

/// Starts an empty Redis server.
pub(crate) async fn redis(dir: &Path) -> ServerProcess {
    let port = free_port();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
    command.arg("--dir").arg(dir).stdout(Stdio::null());
    ServerProcess::start(&mut command, port).await
}

/// Starts the axum baseline, see [`crate::baseline`]. `body_size`: bytes.
pub(crate) async fn baseline(body_size: u64) -> ServerProcess {
    let port = free_port();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["baseline", &port.to_string(), &body_size.to_string()]);
    ServerProcess::start(&mut command, port).await
}

/// Starts the homeserver of an attacker, see [`crate::homeserver`].
pub(crate) async fn homeserver() -> ServerProcess {
    let port = free_port();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["homeserver", &port.to_string()]);
    ServerProcess::start(&mut command, port).await
}

/// Starts the service for this homeserver with the shipped configuration, the differences that docs/performance.md
/// states, and `settings` (TOML lines, `section.key = value`).
pub(crate) async fn service(
    dir: &Path,
    homeserver: &ServerProcess,
    settings: &str,
) -> ServerProcess {
    start_service(dir, homeserver, settings).await.0
}

/// Like [`service`]; also returns the time from the start to the first response.
pub(crate) async fn start_service(
    dir: &Path,
    homeserver: &ServerProcess,
    settings: &str,
) -> (ServerProcess, Duration) {
    let port = free_port();
    let root = dir.display();
    let user = format!("sandbox.user = \"{}:{}\"\n", USER.uid, USER.gid);
    let user = if geteuid().is_root() { &*user } else { "" };
    let differences = format!(
        "web.port = {port}\nscan.engines = [\"script\"]\nscan.script = \"{root}/script.sh\"\n\
        scan.temp_directory = \"{root}/temp\"\nscan.canary = \"off\"\noperations.port = 0\n\
        crypto.request_secret_path = \"{root}/secret\"\ndownload.base_homeserver_url = \"http://{}\"\n\
        {user}{settings}",
        homeserver.address
    );
    let mut command = Command::new(Path::new(PROGRAMS).join("matrix-content-scanner"));
    command.arg("-c").arg(SHIPPED_CONFIG).envs(variables(&differences));
    command.stderr(File::create(dir.join("log")).unwrap());
    let begin = Instant::now();
    let program = ServerProcess::start(&mut command, port).await;
    let mut connection = LoadConnection::open(program.address).await;
    let public_key = get("/_matrix/media_proxy/unstable/public_key");
    connection.measure(&public_key, ExpectedBody::Text("public_key")).await;
    (program, begin.elapsed())
}

/// Returns the environment variables that override the configuration file with these TOML lines.
fn variables(settings: &str) -> impl Iterator<Item = (String, &str)> {
    settings.lines().map(|line| {
        let (key, value) = line.split_once(" = ").unwrap();
        // In a variable, a string needs no quotes.
        (format!("MCS_{}", key.replace('.', "__").to_uppercase()), value.trim_matches('"'))
    })
}

/// Writes the scan script and returns its path.
pub(crate) fn write_script(dir: &Path, content: &str) -> PathBuf {
    let path = dir.join("script.sh");
    // Written elsewhere and renamed, so that a partly written file is never executed.
    let temporary = dir.join("fresh");
    fs::write(&temporary, content).unwrap();
    fs::set_permissions(&temporary, Permissions::from_mode(0o755)).unwrap();
    fs::rename(&temporary, &path).unwrap();
    path
}

/// Returns a port that was free at the time of the call.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

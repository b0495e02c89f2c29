//! The programs that are measured: the service itself, nginx as its homeserver and as its limit, a bare axum server.
//! Each is ended when it is dropped, with all that it started, and leaves nothing outside the measurement's own directory.

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

use crate::load::{Connection, Expect, get};

/// Where `benches/run` has put the programs, built as they are packaged.
pub(crate) const PROGRAMS: &str = "target/package";

/// No program takes longer to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom scripts run as where this is started as root: nobody's on any machine.
pub(crate) const USER: User = User { uid: 61_234, gid: 61_235 };

/// A process that listens.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Program {
    async fn start(command: &mut Command, port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // A group of its own: Ctrl-C is this process's to answer, and all that is in it is killed in the end.
        let child = command.stdin(Stdio::null()).process_group(0).spawn().unwrap();
        let mut this = Self { child, address };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            assert!(this.child.try_wait().unwrap().is_none(), "it has ended: {command:?}");
            assert!(Instant::now() < end, "it does not listen: {command:?}");
            sleep(Duration::from_micros(500)).await;
        }
        this
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Processor time that it has taken, its children's not included.
    pub(crate) fn cpu(&self) -> Duration {
        let clock = clock_getcpuclockid(self.pid()).unwrap();
        clock_gettime(clock).unwrap().into()
    }

    /// Bytes of memory that it holds (`VmRSS`), or has held at most (`VmHWM`).
    pub(crate) fn memory(&self, which: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
        let kibibytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kibibytes.parse::<f64>().unwrap() * 1024.0
    }

    /// Descriptors that it has open; none where only root may know.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?.count())
    }

    /// Processes that it has started and that are still there.
    pub(crate) fn children(&self) -> usize {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let of_thread =
            |path: PathBuf| fs::read_to_string(path.join("children")).unwrap_or_default();
        threads.map(|it| of_thread(it.unwrap().path()).split_whitespace().count()).sum()
    }

    /// What it has held at most counts from now on. proc(5), `clear_refs`.
    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // By itself it ends its workers and its sandboxes.
        let _gone = kill(self.pid(), Signal::SIGTERM);
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        for _ in 0..500 {
            if waitid(Id::Pid(self.pid()), ended) != Ok(WaitStatus::StillAlive) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Workers of an nginx that was killed live on. Before it is waited for, while the group's number is nobody else's.
        let _gone = killpg(self.pid(), Signal::SIGKILL);
        let _status = self.child.wait();
    }
}

/// Runs a program to its end; it does not outlive who waits for it.
pub(crate) async fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    command.output().await.unwrap()
}

/// What a program prints that has to succeed.
pub(crate) async fn output(program: &Path, arguments: &[&str]) -> String {
    let output = run(program, arguments).await;
    assert!(output.status.success(), "{}: {}", program.display(), output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Serves what lies in `files`: as a homeserver, and below `/static/`. `/small` is the smallest answer.
pub(crate) async fn nginx(place: &Path) -> Program {
    let port = free_port();
    let here = place.display();
    let user = if geteuid().is_root() { "user root;" } else { "" };
    let config = format!(
        "daemon off; worker_processes auto; {user} pid {here}/nginx.pid; error_log stderr warn;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
            open_file_cache max=100000 inactive=1h; open_file_cache_valid 1h;
            client_body_temp_path {here}/t1; proxy_temp_path {here}/t2; fastcgi_temp_path {here}/t3;
            uwsgi_temp_path {here}/t4; scgi_temp_path {here}/t5;
            default_type image/png;
            server {{
                listen 127.0.0.1:{port};
                location /static/ {{ alias {here}/files/; }}
                location = /small {{ return 200 ok; }}
                # With it 1 MiB takes 40 ms more in nearly every other try.
                location ~ ^/_matrix/media/v3/download/[^/]+/(?<name>[^/]+)$ {{ tcp_nopush off; alias {here}/files/$name; }}
            }}
        }}"
    );
    let path = place.join("nginx.conf");
    fs::write(&path, config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-e").arg("stderr").arg("-p").arg(place).arg("-c").arg(&path);
    Program::start(&mut command, port).await
}

/// See [`crate::bare`].
pub(crate) async fn bare(body: u64) -> Program {
    let port = free_port();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["bare", &port.to_string(), &body.to_string()]);
    Program::start(&mut command, port).await
}

/// The service in front of this homeserver, by default settings but for `settings` (lines of TOML, `section.key = value`)
/// and the canary, which is off.
pub(crate) async fn service(place: &Path, homeserver: &Program, settings: &str) -> Program {
    start_service(place, homeserver, settings).await.0
}

/// The same, and how long it took until it answered.
pub(crate) async fn start_service(
    place: &Path,
    homeserver: &Program,
    settings: &str,
) -> (Program, Duration) {
    let port = free_port();
    let here = place.display();
    let user = format!("sandbox.user = \"{}:{}\"\n", USER.uid, USER.gid);
    let user = if geteuid().is_root() { &*user } else { "" };
    let config = format!(
        "web.port = {port}\nscan.script = \"{here}/script.sh\"\nscan.temp_directory = \"{here}/temp\"\n\
        scan.canary = \"off\"\noperations.port = 0\ncrypto.request_secret_path = \"{here}/secret\"\n\
        crypto.generate = true\ndownload.base_homeserver_url = \"http://{}\"\n{user}{settings}",
        homeserver.address
    );
    let path = place.join("config.toml");
    fs::write(&path, config).unwrap();
    let mut command = Command::new(Path::new(PROGRAMS).join("matrix-content-scanner"));
    command.arg("-c").arg(&path).stderr(File::create(place.join("log")).unwrap());
    let begin = Instant::now();
    let program = Program::start(&mut command, port).await;
    let mut connection = Connection::open(program.address).await;
    let public_key = get("/_matrix/media_proxy/unstable/public_key");
    connection.ask(&public_key, Expect::Text("public_key")).await;
    (program, begin.elapsed())
}

/// Writes the scan script.
pub(crate) fn script(place: &Path, content: &str) -> PathBuf {
    let path = place.join("script.sh");
    // Renamed into place: nothing that is being written can be run.
    let fresh = place.join("fresh");
    fs::write(&fresh, content).unwrap();
    fs::set_permissions(&fresh, Permissions::from_mode(0o755)).unwrap();
    fs::rename(&fresh, &path).unwrap();
    path
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

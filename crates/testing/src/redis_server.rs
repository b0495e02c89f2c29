//! Real servers: the program `redis-server` of the package of the same name, on the loopback interface, without persistence.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::report_skipped;

/// Number of ports that were tried.
static TRIED_PORTS: AtomicU16 = AtomicU16::new(0);

/// Returns a port that is free now and that no other test of this process uses, below those of outgoing connections.
/// The port 10 000 above is free, too: that of the bus of a cluster.
pub fn free_port() -> u16 {
    let start = u16::try_from(std::process::id() % 12_000).unwrap();
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let tried = TRIED_PORTS.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (start + tried) % 12_000;
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}

/// A server. Killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    pub port: u16,
    /// Working directory.
    pub directory: TempDir,
    process: Child,
    options: Vec<String>,
}

impl RedisServer {
    /// Returns whether `redis-server` is installed, or reports that a test is skipped.
    #[must_use]
    pub fn is_installed(test: &str) -> bool {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let is_found = std::env::split_paths(&paths).any(|path| path.join("redis-server").exists());
        if !is_found {
            report_skipped(test, "needs redis-server (package redis-server)");
        }
        is_found
    }

    /// Starts a server with these options, and waits until it replies.
    pub async fn start(options: &[&str]) -> Self {
        // Another process may take the port before the server does.
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            let port = free_port();
            let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
            let process = spawn(directory.path(), port, &options);
            let mut server = Self { port, directory, process, options };
            if server.wait_ready().await {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Waits until the server replies. Returns `false` if it has ended, for example because another process has the
    /// port.
    async fn wait_ready(&mut self) -> bool {
        let process = format!("process_id:{}\r", self.process.id());
        for _ in 0..1000 {
            let is_open = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok();
            if is_open && self.cli(&["INFO", "server"]).contains(&process) {
                return true;
            }
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Returns the address for `store.urls`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    pub fn kill(&mut self) {
        // After SIGSTOP, too.
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }

    /// Starts the server again after [`kill`](Self::kill), without its keys.
    pub async fn restart(&mut self) {
        self.process = spawn(self.directory.path(), self.port, &self.options);
        assert!(self.wait_ready().await);
    }

    /// Sends a command as an operator does, and returns the reply.
    #[expect(clippy::must_use_candidate, reason = "most commands have no result of interest")]
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::disallowed_methods, reason = "not a program that the service starts")]
fn command(program: &str) -> Command {
    Command::new(program)
}

/// Starts a server or sentinel in a directory.
fn spawn(directory: &Path, port: u16, options: &[String]) -> Child {
    let log = fs::File::create(directory.join(format!("log-{port}"))).unwrap();
    let mut command = command("redis-server");
    // A configuration file, if it is the first option.
    let (file, options) = match options {
        [file, rest @ ..] if !file.starts_with("--") => (Some(file), rest),
        all => (None, all),
    };
    command.args(file).args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--save", "", "--appendonly", "no"]).args(options);
    command.current_dir(directory).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Sends a command to a server on loopback.
fn cli(port: u16, arguments: &[&str]) -> String {
    let run = || {
        let mut command = command("redis-cli");
        command.args(["-p", &port.to_string()]).args(arguments).output().unwrap()
    };
    let mut output = run();
    // A server that becomes a replica of another one closes its connections.
    if output.stderr.ends_with(b"closed the connection\n") {
        output = run();
    }
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

//! Real servers: the program `redis-server` of the package of the same name, on the loopback interface or
//! in a network namespace, without persistence.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
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

use crate::{NetworkNamespace, report_skipped};

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
    place: ServerPlace,
}

/// Where a server runs.
#[derive(Clone, Debug)]
struct ServerPlace {
    address: Ipv4Addr,
    /// Arguments before the program.
    prefix: Vec<String>,
}

impl ServerPlace {
    const LOOPBACK: Self = Self { address: Ipv4Addr::LOCALHOST, prefix: Vec::new() };
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
        Self::start_at(ServerPlace::LOOPBACK, options).await
    }

    /// Starts a server in a network namespace, and waits until it replies.
    pub async fn start_in(namespace: &NetworkNamespace) -> Self {
        let place = ServerPlace { address: namespace.address, prefix: namespace.prefix() };
        Self::start_at(place, &["--protected-mode", "no"]).await
    }

    async fn start_at(place: ServerPlace, options: &[&str]) -> Self {
        // Another process may take the port before the server does.
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            let port = free_port();
            let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
            let process = spawn(&place, directory.path(), port, &options);
            let place = place.clone();
            let mut server = Self { port, directory, process, options, place };
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
            let is_open =
                tokio::net::TcpStream::connect((self.place.address, self.port)).await.is_ok();
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
        format!("redis://{}:{}", self.place.address, self.port)
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
        self.process = spawn(&self.place, self.directory.path(), self.port, &self.options);
        assert!(self.wait_ready().await);
    }

    /// Sends a command as an operator does, and returns the reply.
    #[expect(clippy::must_use_candidate, reason = "most commands have no result of interest")]
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self.place.address, self.port, arguments)
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
fn spawn(place: &ServerPlace, directory: &Path, port: u16, options: &[String]) -> Child {
    let log = fs::File::create(directory.join(format!("log-{port}"))).unwrap();
    let mut words = place.prefix.iter().map(String::as_str).chain(["redis-server"]);
    let mut command = command(words.next().unwrap());
    command.args(words);
    // A configuration file, if it is the first option.
    let (file, options) = match options {
        [file, rest @ ..] if !file.starts_with("--") => (Some(file), rest),
        all => (None, all),
    };
    command.args(file).args(["--port", &port.to_string(), "--bind", &place.address.to_string()]);
    command.args(["--save", "", "--appendonly", "no"]).args(options);
    command.current_dir(directory).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Sends a command to a server.
fn cli(address: Ipv4Addr, port: u16, arguments: &[&str]) -> String {
    let run = || {
        let mut command = command("redis-cli");
        command
            .args(["-h", &address.to_string(), "-p", &port.to_string()])
            .args(arguments)
            .output()
            .unwrap()
    };
    let mut output = run();
    // A server that becomes a replica of another one closes its connections.
    if output.stderr.ends_with(b"closed the connection\n") {
        output = run();
    }
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

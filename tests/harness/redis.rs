//! A real redis-server on a port of the loopback interface.
#![expect(clippy::disallowed_methods, reason = "a server beside the program under test")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mcs_testing::report_skipped;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::TEST_TIMEOUT;

/// Running server without persistence. Killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    directory: TempDir,
}

impl RedisServer {
    /// Starts a server with these options. Returns `None`, and reports the test as skipped, if the program is not
    /// installed.
    pub fn start(test: &str, arguments: &[&str]) -> Option<Self> {
        // The port may be taken by another process between the two calls; the server then exits.
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let directory = TempDir::new().unwrap();
        let Some(child) = spawn(port, &arguments, &directory) else {
            report_skipped(test, "redis-server is not installed");
            return None;
        };
        let server = Self { child, port, arguments, directory };
        server.wait();
        Some(server)
    }

    /// Returns the address for `store.urls`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Kills the server, and starts it again on the same port, without any data.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.port, &self.arguments, &self.directory).unwrap();
        self.wait();
    }

    /// Executes a command, and returns the reply as it is encoded.
    pub fn execute(&self, command: &[&[u8]]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            request.extend(format!("${}\r\n", part.len()).bytes());
            request.extend_from_slice(part);
            request.extend_from_slice(b"\r\n");
        }
        // The server closes the connection after the reply.
        request.extend_from_slice(b"*1\r\n$4\r\nQUIT\r\n");
        stream.write_all(&request).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        reply.strip_suffix(b"+OK\r\n").unwrap_or(&reply).to_vec()
    }

    /// Returns the keys of the server.
    pub fn keys(&self) -> Vec<String> {
        let reply = self.execute(&[b"KEYS", b"*"]);
        let reply = String::from_utf8(reply).unwrap();
        reply.split("\r\n").filter(|line| line.starts_with("mcs1:")).map(str::to_owned).collect()
    }

    fn wait(&self) {
        let end = Instant::now() + TEST_TIMEOUT;
        while TcpStream::connect(self.address()).is_err() {
            assert!(Instant::now() < end, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn spawn(port: u16, arguments: &Vec<String>, directory: &TempDir) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]);
    command.arg(directory.path()).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

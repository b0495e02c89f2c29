//! An ICAP server, c-icap with clamd behind it, asked by config/icap.sh over the one TCP port that is allowed.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
};

use crate::{
    Server, Setup,
    clamav::{Clamd, FAILURES},
    harness::{self, scanner::as_root},
    lacks, outside,
};

/// c-icap on a port of its own.
pub(crate) struct Icap {
    server: Server,
    pub(crate) port: u16,
}

impl Icap {
    pub(crate) async fn start(clamd: &Clamd) -> Self {
        Self::start_with(clamd, "").await
    }

    /// With these lines of configuration too.
    pub(crate) async fn start_with(clamd: &Clamd, lines: &str) -> Self {
        let server = Server::new();
        // The port may be taken by another before c-icap has it; then it ends, and so does the test.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let modules = modules().display().to_string();
        let here = server.directory.path().display().to_string();
        let user = if as_root() { "User c-icap\nGroup c-icap\n" } else { "" };
        let config = include_str!("c-icap.conf")
            .replace("@HERE@", &here)
            .replace("@PORT@", &port.to_string())
            .replace("@MODULES@", &modules)
            .replace("@CLAMD@", clamd.socket().to_str().unwrap())
            + user
            + lines;
        fs::write(server.path("c-icap.conf"), config).unwrap();
        let mut this = Self { server, port };
        this.run().await;
        this
    }

    /// Starts it, for the first time or again.
    pub(crate) async fn run(&mut self) {
        let port = self.port;
        // Children of one that was stopped may be listening still.
        let is_free = || TcpStream::connect(("127.0.0.1", port)).is_err();
        harness::until("a free port", is_free).await;
        let mut c_icap = outside("c-icap");
        c_icap.arg("-N").arg("-f").arg(self.path("c-icap.conf"));
        self.server.start(c_icap);
        self.server.is_ready(|| TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    }

    /// Of a file in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.server.path(name)
    }

    /// How often it has answered a request for this service with this ICAP status; it writes that down after the answer.
    pub(crate) fn answered(&self, method: &str, service: &str, status: u16) -> usize {
        let log = fs::read_to_string(self.path("access.log")).unwrap_or_default();
        let is_one = |line: &&str| {
            let words: Vec<_> = line.split(' ').rev().take(3).collect();
            let name = words.get(1).map(|it| it.split('?').next().unwrap_or_default());
            (words.first(), name) == (Some(&&*status.to_string()), Some(service))
                && words.get(2) == Some(&method)
        };
        log.lines().filter(is_one).count()
    }

    pub(crate) fn stop(&mut self) {
        self.server.stop();
    }

    /// As a crash does; the memory and the locks that it shares with its children have names, which only an end in peace
    /// removes.
    pub(crate) fn kill(&mut self) {
        let child = self.server.child.as_ref().expect("a server that runs");
        let open = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
        let open: Vec<_> = open.filter_map(|it| fs::read_link(it.unwrap().path()).ok()).collect();
        self.server.kill();
        let shared = ["/dev/shm/c-icap-", "/tmp/icap_lock_"];
        let is_shared =
            |path: &&PathBuf| shared.iter().any(|it| path.to_string_lossy().starts_with(it));
        let shared: Vec<_> = open.iter().filter(is_shared).collect();
        assert_eq!(shared.len(), 3, "its memory, and two locks: {open:?}");
        for path in shared {
            fs::remove_file(path).unwrap();
        }
    }

    fn settings(&self, allowed: u16) -> String {
        let port = self.port;
        format!(
            "scan.script_args = [\"127.0.0.1\", \"{port}\", \"avscan\"]\n\
             sandbox.tcp_ports = [{allowed}]\n{FAILURES}"
        )
    }
}

/// Below the directory that Debian names after the architecture.
pub(crate) fn modules() -> PathBuf {
    let of = |architecture: fs::DirEntry| architecture.path().join("c_icap");
    let found = fs::read_dir("/usr/lib").unwrap().map(|entry| of(entry.unwrap()));
    found.into_iter().find(|path| Path::new(path).exists()).expect("c-icap's modules")
}

#[tokio::test]
async fn c_icap_client_as_shipped() {
    let test = "c_icap_client_as_shipped";
    if lacks(test, &["c-icap", "c-icap-client", "clamd", "python3"]) {
        return;
    }
    let mut clamd = Clamd::start().await;
    let icap = Icap::start(&clamd).await;
    let script = include_str!("../../config/icap.sh");
    Setup { script, config: &icap.settings(icap.port) }.judges_rightly();
    // Another port than its own is allowed.
    Setup { script, config: &icap.settings(icap.port ^ 1) }.fails();
    // The server answers, and its engine has gone.
    clamd.stop();
    Setup { script, config: &icap.settings(icap.port) }.fails();
}

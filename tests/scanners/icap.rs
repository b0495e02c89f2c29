//! c-icap with clamd as its engine, used by `config/icap.sh` over the only allowed TCP port.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
};

use crate::{
    ScriptSetup, TestDaemon,
    clamav::{ClamdDaemon, FAILURES},
    harness::{self, scanner::is_root},
    host_command, skip_without,
};

/// c-icap on its own port.
pub(crate) struct IcapDaemon {
    daemon: TestDaemon,
    pub(crate) port: u16,
}

impl IcapDaemon {
    pub(crate) async fn start(clamd: &ClamdDaemon) -> Self {
        Self::start_with(clamd, "").await
    }

    /// Starts c-icap with additional lines of configuration.
    pub(crate) async fn start_with(clamd: &ClamdDaemon, lines: &str) -> Self {
        let daemon = TestDaemon::new();
        // Another process may bind the port first. Then c-icap exits and the test fails.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let modules = modules().display().to_string();
        let directory = daemon.directory.path().display().to_string();
        let user = if is_root() { "User c-icap\nGroup c-icap\n" } else { "" };
        let config = include_str!("c-icap.conf")
            .replace("@HERE@", &directory)
            .replace("@PORT@", &port.to_string())
            .replace("@MODULES@", &modules)
            .replace("@CLAMD@", clamd.socket().to_str().unwrap())
            + user
            + lines;
        fs::write(daemon.path("c-icap.conf"), config).unwrap();
        let mut icap = Self { daemon, port };
        icap.run().await;
        icap
    }

    /// Starts or restarts the daemon and waits until it accepts connections.
    pub(crate) async fn run(&mut self) {
        let port = self.port;
        // Children of a stopped c-icap may still be listening.
        let is_free = || TcpStream::connect(("127.0.0.1", port)).is_err();
        harness::wait_until("port is free", is_free).await;
        let mut c_icap = host_command("c-icap");
        c_icap.arg("-N").arg("-f").arg(self.path("c-icap.conf"));
        self.daemon.start(c_icap);
        self.daemon.wait_until_ready(|| TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    }

    /// Returns the path of a file in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.daemon.path(name)
    }

    /// Number of requests for this service with this ICAP status. c-icap logs a request after responding.
    pub(crate) fn response_count(&self, method: &str, service: &str, status: u16) -> usize {
        let log = fs::read_to_string(self.path("access.log")).unwrap_or_default();
        let matches = |line: &&str| {
            let fields: Vec<_> = line.split(' ').rev().take(3).collect();
            let name = fields.get(1).map(|uri| uri.split('?').next().unwrap_or_default());
            (fields.first(), name) == (Some(&&*status.to_string()), Some(service))
                && fields.get(2) == Some(&method)
        };
        log.lines().filter(matches).count()
    }

    pub(crate) fn stop(&mut self) {
        self.daemon.stop();
    }

    /// Kills the daemon with SIGKILL, like a crash. Then removes the named shared memory and locks that c-icap removes
    /// only on a regular exit.
    pub(crate) fn kill(&mut self) {
        let child = self.daemon.child.as_ref().expect("daemon is running");
        let fds = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
        let open: Vec<_> = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok()).collect();
        self.daemon.kill();
        let prefixes = ["/dev/shm/c-icap-", "/tmp/icap_lock_"];
        let is_shared = |path: &&PathBuf| {
            prefixes.iter().any(|prefix| path.to_string_lossy().starts_with(prefix))
        };
        let shared: Vec<_> = open.iter().filter(is_shared).collect();
        assert_eq!(shared.len(), 3, "expected shared memory and two locks: {open:?}");
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

/// Directory of c-icap's modules, below Debian's architecture-specific library directory.
pub(crate) fn modules() -> PathBuf {
    let module_path = |architecture: fs::DirEntry| architecture.path().join("c_icap");
    let mut paths = fs::read_dir("/usr/lib").unwrap().map(|entry| module_path(entry.unwrap()));
    paths.find(|path| Path::new(path).exists()).expect("c-icap's modules")
}

#[tokio::test]
async fn shipped_icap_script_returns_correct_verdicts() {
    let test = "shipped_icap_script_returns_correct_verdicts";
    if skip_without(test, &["c-icap", "c-icap-client", "clamd", "python3"]) {
        return;
    }
    let mut clamd = ClamdDaemon::start().await;
    let icap = IcapDaemon::start(&clamd).await;
    let script = include_str!("../../config/icap.sh");
    ScriptSetup { script, config: &icap.settings(icap.port) }.assert_verdicts();
    // Only another port is allowed.
    ScriptSetup { script, config: &icap.settings(icap.port ^ 1) }.assert_scan_errors();
    // The ICAP server responds, but its engine is down.
    clamd.stop();
    ScriptSetup { script, config: &icap.settings(icap.port) }.assert_scan_errors();
}

//! `ClamAV` as a program and as a daemon, with test signatures because the official ones cannot be
//! downloaded offline.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use crate::{ScriptSetup, TestDaemon, harness::scanner::is_root, host_command, skip_without};

/// MD5 and size of the EICAR test file. The hash covers the whole file, so a zipped copy is found only
/// by unpacking it.
const SIGNATURES: &str = include_str!("eicar.hdb");

pub(crate) const FAILURES: &str = "scan.failure_exit_codes = [2, 126, 127]\n";

fn write_signatures(directory: &Path) {
    fs::create_dir(directory).unwrap();
    fs::write(directory.join("test.hdb"), SIGNATURES).unwrap();
}

/// clamd with its own socket and signatures.
pub(crate) struct ClamdDaemon(TestDaemon);

impl ClamdDaemon {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts clamd with additional lines of configuration.
    pub(crate) async fn start_with(lines: &str) -> Self {
        let daemon = TestDaemon::new();
        write_signatures(&daemon.path("db"));
        let mut clamd = Self(daemon);
        clamd.write_config(lines);
        clamd.run().await;
        clamd
    }

    fn write_config(&self, lines: &str) {
        let daemon = &self.0;
        let user = if is_root() { "User clamav\n" } else { "" };
        let directory = daemon.directory.path().to_str().unwrap();
        let config = include_str!("clamd.conf").replace("@HERE@", directory) + user + lines + "\n";
        fs::write(daemon.path("clamd.conf"), config).unwrap();
    }

    /// Starts or restarts the daemon and waits until it answers.
    pub(crate) async fn run(&mut self) {
        let mut clamd = host_command("clamd");
        clamd.arg("--config-file").arg(self.config());
        self.0.start(clamd);
        let socket = self.socket();
        let is_ready =
            || send_command(&socket, "PING").is_ok_and(|response| response.starts_with(b"PONG"));
        self.0.wait_until_ready(is_ready).await;
    }

    /// Replaces all signatures with these, of this version, and waits until the daemon has loaded them.
    pub(crate) async fn replace_signatures(&self, version: u32, signatures: &str) {
        self.build_signatures(version, signatures);
        assert_eq!(send_command(&self.socket(), "RELOAD").unwrap(), b"RELOADING\0");
        let new_version = format!("/{version}/");
        crate::harness::wait_until("new signatures", || {
            let response = send_command(&self.socket(), "VERSION").unwrap_or_default();
            String::from_utf8_lossy(&response).contains(&new_version)
        })
        .await;
    }

    fn build_signatures(&self, version: u32, signatures: &str) {
        let directory = self.0.path(&format!("build-{version}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("daily.hdb"), signatures).unwrap();
        fs::write(directory.join("COPYING"), "").unwrap();
        let mut sigtool = host_command("sigtool");
        sigtool.current_dir(&directory).arg("--build=daily.cud").arg("--unsigned");
        sigtool.arg(format!("--cvd-version={version}")).stdin(std::process::Stdio::piped());
        let mut sigtool = sigtool.stdout(std::process::Stdio::null()).spawn().unwrap();
        // sigtool asks for the builder's name.
        sigtool.stdin.take().unwrap().write_all(b"test\n").unwrap();
        assert!(sigtool.wait().unwrap().success());
        let _ = fs::remove_file(self.0.path("db").join("test.hdb"));
        let built = directory.join("daily.cud");
        fs::set_permissions(&built, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(built, self.0.path("db").join("daily.cud")).unwrap();
    }

    /// Suspends the daemon with SIGSTOP. The kernel still accepts connections, but they get no response.
    pub(crate) fn freeze(&self) {
        self.0.signal(nix::sys::signal::Signal::SIGSTOP);
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.path("clamd.ctl")
    }

    fn config(&self) -> PathBuf {
        self.0.path("clamd.conf")
    }

    pub(crate) fn stop(&mut self) {
        self.0.stop();
    }

    /// Configuration that `config/clamdscan.sh` documents as required.
    fn settings(&self) -> String {
        let (socket, config) = (self.socket(), self.config());
        let (socket, config) = (socket.display(), config.display());
        format!(
            "scan.script_args = [\"{config}\"]\nsandbox.unix_sockets = [\"{socket}\"]\n\
             sandbox.read_only_paths = [\"{config}\"]\n{FAILURES}"
        )
    }
}

/// Sends a command to clamd and returns its response.
fn send_command(socket: &Path, command: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("z{command}\0").as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    Ok(response)
}

#[test]
fn clamscan_returns_correct_verdicts() {
    if skip_without("clamscan_returns_correct_verdicts", &["clamscan", "python3"]) {
        return;
    }
    let directory = TestDaemon::new();
    let signatures = directory.path("db");
    write_signatures(&signatures);
    let script = format!(
        "#!/bin/sh\nexec clamscan --database={} --no-summary --infected \"$1\"\n",
        signatures.display()
    );
    let config = format!("sandbox.read_only_paths = [\"{}\"]\n{FAILURES}", signatures.display());
    ScriptSetup { script: &script, config: &config }.assert_verdicts();
}

#[tokio::test]
async fn shipped_clamdscan_script_returns_correct_verdicts() {
    let test = "shipped_clamdscan_script_returns_correct_verdicts";
    if skip_without(test, &["clamd", "clamdscan", "python3"]) {
        return;
    }
    let mut clamd = ClamdDaemon::start().await;
    let settings = clamd.settings();
    let setup =
        ScriptSetup { script: include_str!("../../config/clamdscan.sh"), config: &settings };
    setup.assert_verdicts();
    clamd.stop();
    setup.assert_scan_errors();
}

#[tokio::test]
async fn clamdscan_stream_returns_correct_verdicts() {
    let test = "clamdscan_stream_returns_correct_verdicts";
    if skip_without(test, &["clamd", "clamdscan", "python3"]) {
        return;
    }
    let clamd = ClamdDaemon::start().await;
    let script = "#!/bin/sh\nexec clamdscan --stream --no-summary --config-file=\"$1\" -- \"$2\"\n";
    ScriptSetup { script, config: &clamd.settings() }.assert_verdicts();
}

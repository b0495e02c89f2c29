//! `ClamAV`, by itself and with its daemon, on signatures of our own: real ones cannot be had offline.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use crate::{Server, Setup, harness::scanner::as_root, lacks, outside};

/// MD5 and size of the EICAR test file: of the whole file, so what is zipped is found only by who unpacks it.
const SIGNATURES: &str = include_str!("eicar.hdb");

pub(crate) const FAILURES: &str = "scan.failure_exit_codes = [2, 126, 127]\n";

fn write_signatures(directory: &Path) {
    fs::create_dir(directory).unwrap();
    fs::write(directory.join("test.hdb"), SIGNATURES).unwrap();
}

/// clamd on a socket of its own.
pub(crate) struct Clamd(Server);

impl Clamd {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With these lines of configuration too.
    pub(crate) async fn start_with(lines: &str) -> Self {
        let server = Server::new();
        write_signatures(&server.path("db"));
        let mut this = Self(server);
        this.write_config(lines);
        this.run().await;
        this
    }

    fn write_config(&self, lines: &str) {
        let server = &self.0;
        let user = if as_root() { "User clamav\n" } else { "" };
        let here = server.directory.path().to_str().unwrap();
        let config = include_str!("clamd.conf").replace("@HERE@", here) + user + lines + "\n";
        fs::write(server.path("clamd.conf"), config).unwrap();
    }

    /// Starts it, for the first time or again.
    pub(crate) async fn run(&mut self) {
        let mut clamd = outside("clamd");
        clamd.arg("--config-file").arg(self.config());
        self.0.start(clamd);
        let socket = self.socket();
        self.0.is_ready(|| said(&socket, "PING").is_ok_and(|it| it.starts_with(b"PONG"))).await;
    }

    /// Replaces all signatures by these, of this version, and waits until they are in force.
    pub(crate) async fn knows(&self, version: u32, signatures: &str) {
        self.lay_out(version, signatures);
        assert_eq!(said(&self.socket(), "RELOAD").unwrap(), b"RELOADING\0");
        let is_new = format!("/{version}/");
        crate::harness::until("the new signatures", || {
            let version = said(&self.socket(), "VERSION").unwrap_or_default();
            String::from_utf8_lossy(&version).contains(&is_new)
        })
        .await;
    }

    fn lay_out(&self, version: u32, signatures: &str) {
        let directory = self.0.path(&format!("build-{version}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("daily.hdb"), signatures).unwrap();
        fs::write(directory.join("COPYING"), "").unwrap();
        let mut sigtool = outside("sigtool");
        sigtool.current_dir(&directory).arg("--build=daily.cud").arg("--unsigned");
        sigtool.arg(format!("--cvd-version={version}")).stdin(std::process::Stdio::piped());
        let mut sigtool = sigtool.stdout(std::process::Stdio::null()).spawn().unwrap();
        // Who builds it.
        sigtool.stdin.take().unwrap().write_all(b"test\n").unwrap();
        assert!(sigtool.wait().unwrap().success());
        let _ = fs::remove_file(self.0.path("db").join("test.hdb"));
        let built = directory.join("daily.cud");
        fs::set_permissions(&built, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(built, self.0.path("db").join("daily.cud")).unwrap();
    }

    /// Stops it where it is; who connects is taken and not answered.
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

    /// What config/clamdscan.sh says that it needs.
    fn settings(&self) -> String {
        let (socket, config) = (self.socket(), self.config());
        let (socket, config) = (socket.display(), config.display());
        format!(
            "scan.script_args = [\"{config}\"]\nsandbox.unix_sockets = [\"{socket}\"]\n\
             sandbox.read_only_paths = [\"{config}\"]\n{FAILURES}"
        )
    }
}

fn said(socket: &Path, command: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("z{command}\0").as_bytes())?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said)?;
    Ok(said)
}

#[test]
fn clamscan() {
    if lacks("clamscan", &["clamscan", "python3"]) {
        return;
    }
    let server = Server::new();
    let signatures = server.path("db");
    write_signatures(&signatures);
    let script = format!(
        "#!/bin/sh\nexec clamscan --database={} --no-summary --infected \"$1\"\n",
        signatures.display()
    );
    let config = format!("sandbox.read_only_paths = [\"{}\"]\n{FAILURES}", signatures.display());
    Setup { script: &script, config: &config }.judges_rightly();
}

#[tokio::test]
async fn clamdscan_by_descriptor_as_shipped() {
    let test = "clamdscan_by_descriptor_as_shipped";
    if lacks(test, &["clamd", "clamdscan", "python3"]) {
        return;
    }
    let mut clamd = Clamd::start().await;
    let settings = clamd.settings();
    let setup = Setup { script: include_str!("../../config/clamdscan.sh"), config: &settings };
    setup.judges_rightly();
    clamd.stop();
    setup.fails();
}

#[tokio::test]
async fn clamdscan_by_stream() {
    if lacks("clamdscan_by_stream", &["clamd", "clamdscan", "python3"]) {
        return;
    }
    let clamd = Clamd::start().await;
    let script = "#!/bin/sh\nexec clamdscan --stream --no-summary --config-file=\"$1\" -- \"$2\"\n";
    Setup { script, config: &clamd.settings() }.judges_rightly();
}

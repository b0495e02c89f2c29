//! `ClamAV`, by itself and with its daemon, on signatures of our own: real ones cannot be had offline.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
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
        let server = Server::new();
        write_signatures(&server.path("db"));
        let user = if as_root() { "User clamav\n" } else { "" };
        let here = server.directory.path().to_str().unwrap();
        let config = include_str!("clamd.conf").replace("@HERE@", here) + user;
        fs::write(server.path("clamd.conf"), config).unwrap();
        let mut this = Self(server);
        let mut clamd = outside("clamd");
        clamd.arg("--config-file").arg(this.config());
        this.0.start(clamd);
        let socket = this.socket();
        this.0.is_ready(|| pong(&socket).is_ok_and(|said| said.starts_with(b"PONG"))).await;
        this
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

fn pong(socket: &Path) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"zPING\0")?;
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

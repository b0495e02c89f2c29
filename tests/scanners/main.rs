//! Real scanners under every sandbox configuration that can be simulated on this machine. Sandbox
//! restrictions must never make a scanner report an infected file as clean.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers fail by panicking"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod clamav;
mod engines;
mod icap;
mod scripts;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use crate::harness::{ScannerBuilder, eicar, report_skipped, scanner::is_root};

/// Sandbox features of a machine, simulated by a command that wraps the program.
struct MachineProfile {
    name: &'static str,
    wrapper: &'static [&'static str],
    namespaces: bool,
}

fn machine_profiles() -> [MachineProfile; 2] {
    // Like a container: root without CAP_SYS_ADMIN, or a user where user namespaces are disabled.
    let without_namespaces: &[&str] = if is_root() {
        &["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    } else {
        const DISABLE_NAMESPACES: &str = "echo 0 > /proc/sys/user/max_user_namespaces && \
                               exec setpriv --inh-caps=-all --ambient-caps=-all \"$@\"";
        &[
            "unshare",
            "--user",
            "--map-current-user",
            "--keep-caps",
            "sh",
            "-c",
            DISABLE_NAMESPACES,
            "sh",
        ]
    };
    [
        MachineProfile { name: "all layers", wrapper: &[], namespaces: true },
        MachineProfile {
            name: "without namespaces",
            wrapper: without_namespaces,
            namespaces: false,
        },
    ]
}

/// Scan script with the configuration that it requires.
struct ScriptSetup<'a> {
    script: &'a str,
    config: &'a str,
}

impl ScriptSetup<'_> {
    fn builder(&self, profile: &MachineProfile) -> ScannerBuilder {
        let builder = ScannerBuilder::new("exit 1").wrapped_by(profile.wrapper).config(self.config);
        builder.dir().write_executable("script.sh", self.script);
        builder
    }

    /// Asserts correct verdicts on all samples and a passing canary, under every profile.
    fn assert_verdicts(&self) {
        for profile in machine_profiles() {
            let builder = self.builder(&profile).config("scan.canary = \"eicar\"");
            let (code, stdout, stderr) = builder.run(&["check-config", "--show"]);
            let context = format!("{}:\n{stdout}\n{stderr}", profile.name);
            assert_eq!(code, Some(0), "{context}");
            assert_eq!(!stdout.contains("namespaces: OFF"), profile.namespaces, "{context}");
            assert!(!stdout.contains("landlock: OFF"), "{context}");
            assert!(!stdout.contains("seccomp: OFF"), "{context}");
            assert!(stdout.contains("every engine detects the infected sample"), "{context}");

            for (sample, path) in SampleFiles::new().all() {
                let (code, stdout, stderr) = builder.run(&["scan", path.to_str().unwrap()]);
                let infected = sample != "clean.txt";
                assert_eq!(
                    code,
                    Some(infected.into()),
                    "{sample}, {}: {stdout}{stderr}",
                    profile.name
                );
                assert_eq!(stdout.contains("not clean"), infected, "{sample}: {stdout}");
            }
        }
    }

    /// Asserts a scan error for every sample, under every profile.
    fn assert_scan_errors(&self) {
        for profile in machine_profiles() {
            let builder = self.builder(&profile);
            for (sample, path) in SampleFiles::new().all() {
                let (code, stdout, stderr) = builder.run(&["scan", path.to_str().unwrap()]);
                assert_eq!(code, Some(2), "{sample}, {}: {stdout}{stderr}", profile.name);
            }
        }
    }
}

/// Files to scan. Created at run time so that no scanner finds them in the checkout.
struct SampleFiles(TempDir);

impl SampleFiles {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("clean.txt"), "nothing in here\n").unwrap();
        fs::write(path("eicar.txt"), eicar()).unwrap();
        // Compressed, so that a scanner must unpack it.
        for (zip, content) in [("eicar.zip", "eicar.txt"), ("twice.zip", "eicar.zip")] {
            let mut python = host_command("python3");
            python.current_dir(&directory).args(["-m", "zipfile", "-c", zip, content]);
            assert!(python.status().unwrap().success());
        }
        Self(directory)
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        ["clean.txt", "eicar.txt", "eicar.zip", "twice.zip"]
            .into_iter()
            .map(|name| (name, self.0.path().join(name)))
    }
}

/// Returns a command for a program of the host that is not under test.
#[expect(clippy::disallowed_methods, reason = "starts servers for scripts and creates zip files")]
fn host_command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH.join(":")).stdin(Stdio::null());
    command
}

const PATH: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// Reports the test as skipped if programs are not installed. Returns whether the test must return.
fn skip_without(test: &str, programs: &[&str]) -> bool {
    let is_installed =
        |program: &&str| PATH.iter().any(|path| Path::new(path).join(program).exists());
    let missing: Vec<_> = programs.iter().filter(|program| !is_installed(program)).collect();
    if !missing.is_empty() {
        report_skipped(test, &format!("not installed: {missing:?}"));
    }
    !missing.is_empty()
}

/// Daemon that scripts and engines connect to, with its own directory that the daemon's user can write to.
struct TestDaemon {
    directory: TempDir,
    child: Option<Child>,
}

impl TestDaemon {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        Self { directory, child: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&mut self, mut command: Command) {
        let log = fs::File::create(self.path("log")).unwrap();
        command.stderr(log.try_clone().unwrap()).stdout(log);
        self.child = Some(command.spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
            // SIGTERM lets c-icap terminate its children. SIGCONT lets a suspended daemon handle SIGTERM.
            let _ = kill(pid, Signal::SIGTERM);
            let _ = kill(pid, Signal::SIGCONT);
            let end = std::time::Instant::now() + harness::TEST_TIMEOUT;
            while std::time::Instant::now() < end {
                if child.try_wait().unwrap().is_some() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("daemon is running");
        kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }

    /// Kills the daemon with SIGKILL, like a crash.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits until `is_ready` returns true. Panics if the daemon exits.
    async fn wait_until_ready(&mut self, mut is_ready: impl FnMut() -> bool) {
        let log = self.path("log");
        let child = self.child.as_mut().unwrap();
        harness::wait_until("daemon is ready", || {
            let status = child.try_wait().unwrap();
            let output = || fs::read_to_string(&log).unwrap_or_default();
            assert!(status.is_none(), "daemon exited: {status:?}\n{}", output());
            is_ready()
        })
        .await;
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        self.stop();
    }
}

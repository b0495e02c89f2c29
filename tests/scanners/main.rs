//! Scanners that people use, under every plan that this machine can be made to give. What the sandbox
//! takes away from them must never make one of them call an infected file clean.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails, in its helpers too"
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

use crate::harness::{Builder, eicar, scanner::as_root, skipped};

/// What a machine gives, simulated by a command that the program is started by.
struct Plan {
    name: &'static str,
    inside: &'static [&'static str],
    namespaces: bool,
}

fn plans() -> [Plan; 2] {
    // As in a container: root without CAP_SYS_ADMIN, or a user where nobody may make user namespaces.
    let without: &[&str] = if as_root() {
        &["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    } else {
        const NO_MORE: &str = "echo 0 > /proc/sys/user/max_user_namespaces && \
                               exec setpriv --inh-caps=-all --ambient-caps=-all \"$@\"";
        &["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", NO_MORE, "sh"]
    };
    [
        Plan { name: "all layers", inside: &[], namespaces: true },
        Plan { name: "without namespaces", inside: without, namespaces: false },
    ]
}

/// An operator's script with the settings that it needs.
struct Setup<'a> {
    script: &'a str,
    config: &'a str,
}

impl Setup<'_> {
    fn under(&self, plan: &Plan) -> Builder {
        let builder = Builder::new("exit 1").inside(plan.inside).config(self.config);
        builder.place().write_executable("script.sh", self.script);
        builder
    }

    /// Clean, infected and zipped under every plan, and the canary.
    fn judges_rightly(&self) {
        for plan in plans() {
            let builder = self.under(&plan).config("scan.canary = \"eicar\"");
            let (code, stdout, stderr) = builder.run(&["check-config"]);
            let about = format!("{}:\n{stdout}\n{stderr}", plan.name);
            assert_eq!(code, Some(0), "{about}");
            assert_eq!(!stdout.contains("namespaces: OFF"), plan.namespaces, "{about}");
            assert!(!stdout.contains("landlock: OFF"), "{about}");
            assert!(!stdout.contains("seccomp: OFF"), "{about}");
            assert!(stdout.contains("each engine knows a bad file from a good one"), "{about}");

            for (sample, path) in Samples::new().all() {
                let (code, stdout, stderr) = builder.run(&["scan", path.to_str().unwrap()]);
                let infected = sample != "clean.txt";
                assert_eq!(
                    code,
                    Some(infected.into()),
                    "{sample}, {}: {stdout}{stderr}",
                    plan.name
                );
                assert_eq!(stdout.contains("not clean"), infected, "{sample}: {stdout}");
            }
        }
    }

    /// A failure under every plan, for what is clean and what is not.
    fn fails(&self) {
        for plan in plans() {
            let builder = self.under(&plan);
            for (sample, path) in Samples::new().all() {
                let (code, stdout, stderr) = builder.run(&["scan", path.to_str().unwrap()]);
                assert_eq!(code, Some(2), "{sample}, {}: {stdout}{stderr}", plan.name);
            }
        }
    }
}

/// Files to be judged, made when they are needed so that no scanner finds them in the checkout.
struct Samples(TempDir);

impl Samples {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("clean.txt"), "nothing in here\n").unwrap();
        fs::write(path("eicar.txt"), eicar()).unwrap();
        // Deflated: whoever finds it has unpacked it.
        for (zip, content) in [("eicar.zip", "eicar.txt"), ("twice.zip", "eicar.zip")] {
            let mut python = outside("python3");
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

/// A program that is no part of what is tested.
#[expect(clippy::disallowed_methods, reason = "servers that scripts speak to, and zip files")]
fn outside(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH.join(":")).stdin(Stdio::null());
    command
}

const PATH: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// Ends a test whose programs are not installed, and says so.
fn lacks(test: &str, programs: &[&str]) -> bool {
    let there = |program: &&str| PATH.iter().any(|path| Path::new(path).join(program).exists());
    let missing: Vec<_> = programs.iter().filter(|program| !there(program)).collect();
    if !missing.is_empty() {
        skipped(test, &format!("not installed: {missing:?}"));
    }
    !missing.is_empty()
}

/// A server that a script speaks to, with a directory of its own that its user can write to.
struct Server {
    directory: TempDir,
    child: Option<Child>,
}

impl Server {
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
            // c-icap has children, which go when they are asked to; who was stopped hears of it when it goes on.
            let _ = kill(pid, Signal::SIGTERM);
            let _ = kill(pid, Signal::SIGCONT);
            let end = std::time::Instant::now() + harness::PATIENCE;
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
        let child = self.child.as_ref().expect("a server that runs");
        kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }

    /// As a crash does, whatever it is at.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits until it answers.
    async fn is_ready(&mut self, mut answers: impl FnMut() -> bool) {
        let log = self.path("log");
        let child = self.child.as_mut().unwrap();
        harness::until("the server's readiness", || {
            let ended = child.try_wait().unwrap();
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none(), "the server ended: {ended:?}\n{}", said());
            answers()
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

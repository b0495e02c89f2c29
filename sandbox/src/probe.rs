//! The trial run: which layers hold is found by a job that goes all the way and looks at itself, not by asking the kernel
//! feature by feature, since a call that succeeds alone may be refused with the others.
//! `proc_pid_status(5)`.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::{Command, Error, Exit, Outcome, Sandbox};

const TIME_LIMIT: Duration = Duration::from_secs(10);
const MAX_OUTPUT: usize = 4096;

/// Run by a shell: the media can be read, `TMPDIR` written, and the process says of itself what the kernel holds it to be.
/// Only what the shell has built in, so that it is about the shell's own process.
const LOOK_AROUND: &str = r#"
test -r "$1" || { echo "the media cannot be read" >&2; exit 1; }
: > "$TMPDIR/probe" || exit 1
test -r /proc/self/status || exit 0
while read -r line; do echo "$line"; done < /proc/self/status
"#;

/// What a trial run found to hold, in the order of the steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    base: String,
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "base: {}", self.base)
    }
}

pub(crate) async fn probe(sandbox: &Sandbox, parent: &Path) -> Result<Layers, Error> {
    let mut job = sandbox.prepare(parent, "probe").await?;
    let command = Command {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), LOOK_AROUND.into(), "sh".into(), job.media_path().into()],
    };
    let exit = job.run(&command, TIME_LIMIT, MAX_OUTPUT).await;
    let (directory, closed) = (job.directory().to_owned(), job.close().await);
    let exit = exit?;
    closed?;
    if tokio::task::spawn_blocking(move || directory.symlink_metadata())
        .await
        .is_ok_and(|found| found.is_ok())
    {
        return Err(Error::Probe("the job's directory was not removed".to_owned()));
    }
    base(sandbox, &exit)
}

fn base(sandbox: &Sandbox, exit: &Exit) -> Result<Layers, Error> {
    if exit.outcome != Outcome::Exited(0) {
        let said = String::from_utf8_lossy(&exit.stderr);
        return Err(Error::Probe(format!("{:?}, {}", exit.outcome, said.trim().escape_debug())));
    }
    let status = String::from_utf8_lossy(&exit.stdout);
    // Without /proc in the sandbox the steps' own success has to do.
    if !status.is_empty() {
        for (field, expected) in [
            ("NoNewPrivs", "1"),
            ("CapPrm", NONE),
            ("CapEff", NONE),
            ("CapInh", NONE),
            ("CapAmb", NONE),
        ] {
            expect(&status, field, expected)?;
        }
        if let Some(user) = sandbox.policy().user {
            expect(&status, "Uid", &[user.uid.to_string().as_str(); 4].join(" "))?;
            expect(&status, "Gid", &[user.gid.to_string().as_str(); 4].join(" "))?;
            expect(&status, "Groups", "")?;
        }
    }
    let user = sandbox.policy().user.map_or_else(
        || {
            "the server's own user (any script can reach the server: base alone is no sandbox)"
                .to_owned()
        },
        |user| format!("uid {} gid {}", user.uid, user.gid),
    );
    Ok(Layers {
        base: format!(
            "{user}, no capabilities, no_new_privs, closed descriptors, clean environment, own session, \
             umask, resource limits, time limit"
        ),
    })
}

const NONE: &str = "0000000000000000";

fn expect(status: &str, field: &str, expected: &str) -> Result<(), Error> {
    let found = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .map(|value| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
    if found.as_deref() == Some(expected) {
        return Ok(());
    }
    Err(Error::Probe(format!("{field} is {found:?} and not {expected:?}")))
}

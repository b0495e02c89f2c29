//! The trial run: which layers hold is found by a job that goes all the way and looks at itself, not by asking the kernel
//! feature by feature, since a call that succeeds alone may be refused with the others.
//! `proc_pid_status(5)`.

use std::path::Path;
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::plan::Plan;
use crate::{Command, Error, Exit, Layer, Layers, Outcome, Policy, Sandbox, Step};

const TIME_LIMIT: Duration = Duration::from_secs(10);
const MAX_OUTPUT: usize = 4096;

/// Run by a shell: the media can be read, `TMPDIR` written, and the process says of itself what the kernel holds it to be.
/// Only what the shell has built in, so that it is about the shell's own process.
const LOOK_AROUND: &str = r#"
test -r "$1" || { echo "the media cannot be read" >&2; exit 1; }
: > "$TMPDIR/probe" || exit 1
echo "Pid: $$"
if test -e /proc/self; then echo "Proc: yes"; else echo "Proc: no"; fi
{ while read -r line; do echo "$line"; done < /proc/self/status; } 2> /dev/null
exit 0
"#;

/// A pid that a process has in a namespace of its own, and no other process of a running machine.
const LARGEST_INNER_PID: u32 = 9;

pub(crate) async fn settle(
    policy: &Policy,
    taken: impl Fn(Layers) -> Sandbox,
    parent: &Path,
) -> Result<Sandbox, Error> {
    let plan = Plan::best(policy);
    let no_cgroup = match policy.cgroup {
        Cgroup::Off(why) => Some(why),
        Cgroup::In(_) | Cgroup::Delegated => None,
    };
    let (base, off) = (base(policy), Vec::new());
    let mut layers = Layers { plan, base, off, no_users: None, no_cgroup };
    loop {
        let sandbox = taken(layers.clone());
        let Err(error) = run(&sandbox, parent).await else {
            layers.judged(policy)?;
            return Ok(sandbox);
        };
        if layers.plan.own_users && matches!(error, Error::NotStarted { step: Step::IdMaps, .. }) {
            layers.plan.own_users = false;
            layers.no_users = Some(reason(&error));
            continue;
        }
        match failed_layer(&error).filter(|layer| layers.plan.has(*layer)) {
            Some(layer) => {
                layers.plan = layers.plan.without(layer, policy);
                layers.off.push((layer, reason(&error)));
            }
            None => return Err(error),
        }
    }
}

fn failed_layer(error: &Error) -> Option<Layer> {
    match error {
        Error::NotStarted { step, .. } => step.layer(),
        Error::Layer(layer, _) => Some(*layer),
        _ => None,
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::NotStarted { step, source } => format!("{step}: {source}"),
        Error::Layer(_, found) => (*found).to_owned(),
        other => other.to_string(),
    }
}

async fn run(sandbox: &Sandbox, parent: &Path) -> Result<(), Error> {
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
    judge(sandbox, &exit)
}

/// Whether the shell has found itself as the plan has it.
fn judge(sandbox: &Sandbox, exit: &Exit) -> Result<(), Error> {
    if exit.outcome != Outcome::Exited(0) {
        let said = String::from_utf8_lossy(&exit.stderr);
        return Err(Error::Probe(format!("{:?}, {}", exit.outcome, said.trim().escape_debug())));
    }
    let status = String::from_utf8_lossy(&exit.stdout);
    if sandbox.plan().namespaces {
        let pid = field(&status, "Pid").and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_none_or(|pid| pid > LARGEST_INNER_PID) {
            return Err(Error::Layer(Layer::Namespaces, "the shell has a pid of the machine's"));
        }
        if field(&status, "Proc").as_deref() != Some("no") {
            return Err(Error::Layer(Layer::Namespaces, "the shell sees the machine's /proc"));
        }
    }
    let readable = field(&status, "NoNewPrivs").is_some();
    if sandbox.plan().landlock > 0 && readable {
        return Err(Error::Layer(Layer::Landlock, "the shell could read /proc"));
    }
    // Where /proc is out of reach the steps' own success has to do.
    if readable {
        for (name, expected) in [
            ("NoNewPrivs", "1"),
            ("CapPrm", NONE),
            ("CapEff", NONE),
            ("CapInh", NONE),
            ("CapAmb", NONE),
        ] {
            expect(&status, name, expected)?;
        }
        if let Some(user) = sandbox.policy().user {
            expect(&status, "Uid", &[user.uid.to_string().as_str(); 4].join(" "))?;
            expect(&status, "Gid", &[user.gid.to_string().as_str(); 4].join(" "))?;
            expect(&status, "Groups", "")?;
        }
        let seccomp = if sandbox.plan().seccomp { "2" } else { "0" };
        if field(&status, "Seccomp").is_some_and(|found| found != seccomp && found != "2") {
            return Err(Error::Layer(Layer::Seccomp, "the shell finds no filter"));
        }
    }
    Ok(())
}

fn base(policy: &Policy) -> String {
    let user = policy.user.map_or_else(
        || "the server's own user".to_owned(),
        |user| format!("uid {} gid {}", user.uid, user.gid),
    );
    format!(
        "{user}, no capabilities, no_new_privs, closed descriptors, clean environment, own session, umask, \
         resource limits, time limit"
    )
}

const NONE: &str = "0000000000000000";

fn expect(status: &str, name: &str, expected: &str) -> Result<(), Error> {
    let found = field(status, name);
    if found.as_deref() == Some(expected) {
        return Ok(());
    }
    Err(Error::Probe(format!("{name} is {found:?} and not {expected:?}")))
}

fn field(status: &str, name: &str) -> Option<String> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(|value| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

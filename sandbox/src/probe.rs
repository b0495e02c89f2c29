//! The probe run: determines the available layers by a complete job that inspects its own restrictions. Probing each
//! kernel feature alone would not suffice, since a call that succeeds alone may fail in combination.
//! `proc_pid_status(5)`.

use std::path::Path;
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::error::{Error, Step};
use crate::job::{Command, Exit, Termination};
use crate::layers::{Layer, Layers, Plan};
use crate::policy::Policy;
use crate::sandbox::Sandbox;

const TIME_LIMIT: Duration = Duration::from_secs(10);
const MAX_OUTPUT: usize = 4096;

/// Shell script that checks that the media is readable and `TMPDIR` writable, and prints the restrictions that the
/// kernel reports for the process. Uses shell builtins only, so that the output is about the shell's own process.
const PROBE_SCRIPT: &str = r#"
test -r "$1" || { echo "the media is not readable" >&2; exit 1; }
: > "$TMPDIR/probe" || exit 1
echo "Pid: $$"
if test -e /proc/self; then echo "Proc: yes"; else echo "Proc: no"; fi
{ while read -r line; do echo "$line"; done < /proc/self/status; } 2> /dev/null
exit 0
"#;

/// Largest pid that identifies a process as inside its own pid namespace; user processes of a running machine have
/// larger ones.
const MAX_NAMESPACE_PID: u32 = 9;

pub(crate) async fn probe(
    policy: &Policy,
    build: impl Fn(Layers) -> Result<Sandbox, Error>,
    parent: &Path,
) -> Result<Sandbox, Error> {
    let plan = Plan::best(policy);
    let no_cgroup = match policy.cgroup {
        Cgroup::Off(reason) => Some(reason),
        Cgroup::In(_) | Cgroup::Delegated => None,
    };
    let (base, off) = (describe_base(policy), Vec::new());
    let mut layers = Layers { plan, base, off, no_users: None, no_host_name: None, no_cgroup };
    loop {
        let sandbox = build(layers.clone())?;
        let Err(error) = run(&sandbox, parent).await else {
            layers.check_mode(policy)?;
            return Ok(sandbox);
        };
        if layers.plan.own_users && matches!(error, Error::NotStarted { step: Step::IdMaps, .. }) {
            layers.plan.own_users = false;
            layers.no_users = Some(reason(&error));
            continue;
        }
        if layers.plan.own_host_name
            && matches!(error, Error::NotStarted { step: Step::HostName, .. })
        {
            layers.plan.own_host_name = false;
            layers.no_host_name = Some(reason(&error));
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
        Error::LayerIneffective(layer, _) => Some(*layer),
        _ => None,
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::NotStarted { step, source } => format!("{step}: {source}"),
        Error::LayerIneffective(_, found) => (*found).to_owned(),
        other => other.to_string(),
    }
}

async fn run(sandbox: &Sandbox, parent: &Path) -> Result<(), Error> {
    let mut job = sandbox.prepare(parent, "probe").await?;
    let command = Command {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), PROBE_SCRIPT.into(), "sh".into(), job.media_path().into()],
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
    check_restrictions(sandbox, &exit)
}

/// Checks that the shell's process has the restrictions of the plan.
fn check_restrictions(sandbox: &Sandbox, exit: &Exit) -> Result<(), Error> {
    if exit.termination != Termination::Exited(0) {
        let stderr = String::from_utf8_lossy(&exit.stderr);
        return Err(Error::Probe(format!(
            "{:?}, {}",
            exit.termination,
            stderr.trim().escape_debug()
        )));
    }
    let status = String::from_utf8_lossy(&exit.stdout);
    if sandbox.plan().namespaces {
        let pid = field(&status, "Pid").and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_none_or(|pid| pid > MAX_NAMESPACE_PID) {
            return Err(Error::LayerIneffective(
                Layer::Namespaces,
                "the shell has a pid of the host's namespace",
            ));
        }
        if field(&status, "Proc").as_deref() != Some("no") {
            return Err(Error::LayerIneffective(
                Layer::Namespaces,
                "the shell can access the host's /proc",
            ));
        }
    }
    let readable = field(&status, "NoNewPrivs").is_some();
    if sandbox.plan().landlock > 0 && readable {
        return Err(Error::LayerIneffective(Layer::Landlock, "the shell could read /proc"));
    }
    // If /proc is inaccessible, the success of the individual steps must suffice.
    if readable {
        for (name, expected) in [
            ("NoNewPrivs", "1"),
            ("CapPrm", NO_CAPABILITIES),
            ("CapEff", NO_CAPABILITIES),
            ("CapInh", NO_CAPABILITIES),
            ("CapAmb", NO_CAPABILITIES),
        ] {
            expect_field(&status, name, expected)?;
        }
        if let Some(user) = sandbox.policy().user {
            expect_field(&status, "Uid", &[user.uid.to_string().as_str(); 4].join(" "))?;
            expect_field(&status, "Gid", &[user.gid.to_string().as_str(); 4].join(" "))?;
            expect_field(&status, "Groups", "")?;
        }
        let seccomp = if sandbox.plan().seccomp { "2" } else { "0" };
        if field(&status, "Seccomp").is_some_and(|found| found != seccomp && found != "2") {
            return Err(Error::LayerIneffective(Layer::Seccomp, "the shell has no filter"));
        }
    }
    Ok(())
}

fn describe_base(policy: &Policy) -> String {
    let user = policy.user.map_or_else(
        || "the server's own user".to_owned(),
        |user| format!("uid {} gid {}", user.uid, user.gid),
    );
    format!(
        "{user}, no capabilities, no_new_privs, closed descriptors, clean environment, own session, umask, \
         resource limits, time limit"
    )
}

const NO_CAPABILITIES: &str = "0000000000000000";

fn expect_field(status: &str, name: &str, expected: &str) -> Result<(), Error> {
    let found = field(status, name);
    if found.as_deref() == Some(expected) {
        return Ok(());
    }
    Err(Error::Probe(format!("{name} is {found:?}, expected {expected:?}")))
}

fn field(status: &str, name: &str) -> Option<String> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(|value| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

//! `[sandbox]`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use mcs_sandbox::{Cgroup, Layer, Limits, Mode, Network, Paths, Policy, User};

use super::{
    kinds::{self, LONGEST, choice, duration, integer, list, size},
    paths::path,
    problem::Warning,
    reader::{Parsed, Reader, Section, Value},
};

/// Debian's and most others' user without rights.
const DEFAULT_USER: &str = "nobody";

const USER_EXPECTED: &str = "the name of a user, or \"uid:gid\", other than root's";

/// Made per job: a common one would let a job see another's files.
const OWN_VARIABLE: &str = "TMPDIR";

pub(super) fn read(reader: &mut Reader<'_>, server: User) -> Option<Policy> {
    let mut sandbox = reader.section("sandbox");
    let mode = mode(&mut sandbox);
    let network = network(&mut sandbox);
    let paths = paths(&mut sandbox);
    let user = user(&mut sandbox, server)?;
    let environment = sandbox.read("environment", kinds::table(variable)).unwrap_or_default();
    let limits = limits(&mut sandbox.subsection("limits", "sandbox.limits"));
    let cgroup = Cgroup::Delegated;
    Some(Policy { mode, network, paths, user, limits, environment, cgroup })
}

#[derive(Clone, Copy, PartialEq)]
enum Strictness {
    Enforce,
    Strict,
    Degraded,
}

fn mode(sandbox: &mut Section<'_, '_>) -> Mode {
    use Strictness::{Degraded, Enforce, Strict};
    let modes = [("enforce", Enforce), ("strict", Strict), ("degraded", Degraded)];
    let written = sandbox.read("mode", choice(&modes)).unwrap_or(Enforce);
    let layers = Layer::ALL.map(|layer| (layer.name(), layer));
    let required = sandbox.read("require", list(choice(&layers))).unwrap_or_default();
    if written != Strict && !required.is_empty() {
        sandbox.conflict("require", "found layers, expected sandbox.mode = \"strict\" with them");
    }
    match written {
        Enforce => Mode::Enforce,
        Strict => Mode::Strict(required),
        Degraded => Mode::Degraded,
    }
}

fn network(sandbox: &mut Section<'_, '_>) -> Network {
    let host = sandbox.read("network", choice(&[("none", false), ("host", true)])).unwrap_or(false);
    let ports = sandbox.read("tcp_ports", list(integer(1..=u16::MAX))).unwrap_or_default();
    match (host, ports.is_empty()) {
        (true, false) => {
            sandbox.conflict(
                "tcp_ports",
                "found ports beside sandbox.network = \"host\", which opens all; expected one of them",
            );
            Network::None
        }
        (true, true) => Network::Host,
        (false, true) => Network::None,
        (false, false) => Network::Ports(ports),
    }
}

fn paths(sandbox: &mut Section<'_, '_>) -> Paths {
    let read_only = shown(sandbox, "read_only_paths");
    let writable = shown(sandbox, "writable_paths");
    let unix_sockets = shown(sandbox, "unix_sockets");
    for path in &writable {
        sandbox.warn(Warning::Writable(path.clone()));
    }
    // A socket comes and goes with its service.
    for path in read_only.iter().chain(&writable).filter(|path| !path.exists()) {
        sandbox.warn(Warning::NotThere(path.clone()));
    }
    Paths { read_only, writable, unix_sockets }
}

fn shown(sandbox: &mut Section<'_, '_>, key: &'static str) -> Vec<PathBuf> {
    sandbox.read(key, list(showable)).unwrap_or_default()
}

/// With these a script would see other processes, devices, or everything.
pub const NEVER_SHOWN: [&str; 3] = ["/proc", "/sys", "/dev"];

fn showable(value: Value<'_>) -> Parsed<PathBuf> {
    let path = path(value)?;
    let never = NEVER_SHOWN.iter().any(|never| path.starts_with(never));
    if path.parent().is_none() || never {
        return value.wrong("a path other than / and outside /proc, /sys and /dev");
    }
    Ok(path)
}

/// The user to change to; `Some(None)` where scripts run as the server does.
#[expect(clippy::option_option, reason = "the outer one is: told as a problem")]
fn user(sandbox: &mut Section<'_, '_>, server: User) -> Option<Option<User>> {
    let written = sandbox.read("user", resolve);
    if sandbox.has("user") {
        let user = written?;
        if server.uid != 0 && user != server {
            sandbox.conflict(
                "user",
                format!(
                    "found {}:{}, expected none: the server runs as {}:{}, and only root can change \
                     to another user",
                    user.uid, user.gid, server.uid, server.gid
                ),
            );
        }
        return Some((server.uid == 0).then_some(user));
    }
    if server.uid != 0 {
        return Some(None);
    }
    let Some(user) = by_name(DEFAULT_USER) else {
        sandbox.missing("user", &format!("{USER_EXPECTED}, since the server runs as root"));
        return None;
    };
    sandbox.warn(Warning::SharedUser(DEFAULT_USER));
    Some(Some(user))
}

fn resolve(value: Value<'_>) -> Parsed<User> {
    let Some(text) = value.text() else { return value.wrong(USER_EXPECTED) };
    let user = match text.split_once(':') {
        Some((uid, gid)) => match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => User { uid, gid },
            _ => return value.wrong(USER_EXPECTED),
        },
        None => match by_name(text) {
            Some(user) => user,
            None => return value.wrong(format!("{USER_EXPECTED}; this system knows no such user")),
        },
    };
    // u32::MAX means "leave as it is" to the kernel.
    if [user.uid, user.gid].iter().any(|id| [0, u32::MAX].contains(id)) {
        return value.wrong(USER_EXPECTED);
    }
    Ok(user)
}

fn by_name(name: &str) -> Option<User> {
    let user = nix::unistd::User::from_name(name).ok().flatten()?;
    Some(User { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

fn limits(table: &mut Section<'_, '_>) -> Limits {
    let default = Limits::default();
    // RLIMIT_CPU counts whole seconds, and 0 of them kill at once.
    let cpu_time = table.read("cpu_time", duration(Duration::from_secs(1)..=LONGEST));
    Limits {
        cpu_time: cpu_time.or(default.cpu_time),
        file_size: table.read("file_size", size(0..=1 << 50)).or(default.file_size),
        open_files: table.read("open_files", integer(16..=1_048_576)).or(default.open_files),
        processes: table.read("processes", integer(1..=1_048_576)).or(default.processes),
        // Less than this does not even load a C library.
        address_space: table
            .read("address_space", size(16 << 20..=1 << 50))
            .or(default.address_space),
        disk: table.read("disk", size(0..=1 << 50)).unwrap_or(default.disk),
        memory: table.read("memory", size(16 << 20..=1 << 50)).or(default.memory),
        cpu_percent: table.read("cpu_percent", integer(1..=100_000)).or(default.cpu_percent),
    }
}

/// The value is taken for a secret: engines get their licence keys this way.
fn variable(name: &str, value: Value<'_>) -> Parsed<(OsString, OsString)> {
    let mut bytes = name.bytes();
    let valid = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !valid {
        return value.wrong_secret("a name of [A-Za-z0-9_], no digit first");
    }
    if name == OWN_VARIABLE {
        return value.wrong_secret("another name: this variable is set for each job");
    }
    Ok((name.into(), kinds::secret(value)?.into()))
}

//! `[sandbox]`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use mcs_sandbox::{Cgroup, Layer, Mode, NetworkAccess, Paths, Policy, ResourceLimits, User};

use super::{
    paths::path,
    problem::Warning,
    reader::{Reader, Section},
    types::{self, MAX_DURATION, choice, duration, integer, list, size},
    value::{ParseResult, RawValue},
};

/// The unprivileged user on most distributions.
const DEFAULT_USER: &str = "nobody";

const USER_EXPECTED: &str = "a user name or \"uid:gid\", not root";

/// Set per job: with a shared directory, a job could access the files of another.
const RESERVED_VARIABLE: &str = "TMPDIR";

pub(super) fn read(reader: &mut Reader<'_>, server: User) -> Option<Policy> {
    let mut sandbox = reader.section("sandbox");
    let mode = mode(&mut sandbox);
    let network = network(&mut sandbox);
    let paths = paths(&mut sandbox);
    let user = user(&mut sandbox, server)?;
    let environment = sandbox.read("environment", types::table(variable)).unwrap_or_default();
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
    let strictness = sandbox.read("mode", choice(&modes)).unwrap_or(Enforce);
    let layers = Layer::ALL.map(|layer| (layer.name(), layer));
    let required = sandbox.read("require", list(choice(&layers))).unwrap_or_default();
    if strictness != Strict && !required.is_empty() {
        sandbox.conflict("require", "found layers, expected sandbox.mode = \"strict\" with them");
    }
    match strictness {
        Enforce => Mode::Enforce,
        Strict => Mode::Strict(required),
        Degraded => Mode::Degraded,
    }
}

fn network(sandbox: &mut Section<'_, '_>) -> NetworkAccess {
    let host = sandbox.read("network", choice(&[("none", false), ("host", true)])).unwrap_or(false);
    let ports = sandbox.read("tcp_ports", list(integer(1..=u16::MAX))).unwrap_or_default();
    match (host, ports.is_empty()) {
        (true, false) => {
            sandbox.conflict(
                "tcp_ports",
                "found ports beside sandbox.network = \"host\", which allows all ports; expected one of the two",
            );
            NetworkAccess::None
        }
        (true, true) => NetworkAccess::Host,
        (false, true) => NetworkAccess::None,
        (false, false) => NetworkAccess::Ports(ports),
    }
}

fn paths(sandbox: &mut Section<'_, '_>) -> Paths {
    let read_only = visible_paths(sandbox, "read_only_paths");
    let writable = visible_paths(sandbox, "writable_paths");
    let unix_sockets = visible_paths(sandbox, "unix_sockets");
    for path in &writable {
        sandbox.warn(Warning::Writable(path.clone()));
    }
    // Sockets are not checked: a service may create its socket later.
    for path in read_only.iter().chain(&writable).filter(|path| !path.exists()) {
        sandbox.warn(Warning::MissingPath(path.clone()));
    }
    Paths { read_only, writable, unix_sockets }
}

fn visible_paths(sandbox: &mut Section<'_, '_>, key: &'static str) -> Vec<PathBuf> {
    sandbox.read(key, list(visible_path)).unwrap_or_default()
}

/// Paths that would expose other processes, kernel settings or devices to scripts.
pub const FORBIDDEN_PATHS: [&str; 3] = ["/proc", "/sys", "/dev"];

fn visible_path(value: RawValue<'_>) -> ParseResult<PathBuf> {
    let path = path(value)?;
    let forbidden = FORBIDDEN_PATHS.iter().any(|forbidden| path.starts_with(forbidden));
    if path.parent().is_none() || forbidden {
        return value.invalid("a path other than / and outside /proc, /sys and /dev");
    }
    Ok(path)
}

/// Returns the user to switch to, or `Some(None)` if scripts run as the service's user. The outer `None`
/// means that a problem was recorded.
#[expect(clippy::option_option, reason = "outer: invalid; inner: no other user")]
fn user(sandbox: &mut Section<'_, '_>, server: User) -> Option<Option<User>> {
    let configured = sandbox.read("user", parse_user);
    if sandbox.has("user") {
        let user = configured?;
        if server.uid != 0 && user != server {
            sandbox.conflict(
                "user",
                format!(
                    "found {}:{}, expected none: the service runs as {}:{}, and only root can switch \
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
    let Some(user) = user_by_name(DEFAULT_USER) else {
        sandbox.missing("user", &format!("{USER_EXPECTED}, since the service runs as root"));
        return None;
    };
    sandbox.warn(Warning::SharedUser(DEFAULT_USER));
    Some(Some(user))
}

fn parse_user(value: RawValue<'_>) -> ParseResult<User> {
    let Some(text) = value.text() else { return value.invalid(USER_EXPECTED) };
    let user = match text.split_once(':') {
        Some((uid, gid)) => match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => User { uid, gid },
            _ => return value.invalid(USER_EXPECTED),
        },
        None => match user_by_name(text) {
            Some(user) => user,
            None => return value.invalid(format!("{USER_EXPECTED}; no such user exists")),
        },
    };
    // u32::MAX means "unchanged" in setresuid(2).
    if [user.uid, user.gid].iter().any(|id| [0, u32::MAX].contains(id)) {
        return value.invalid(USER_EXPECTED);
    }
    Ok(user)
}

fn user_by_name(name: &str) -> Option<User> {
    let user = nix::unistd::User::from_name(name).ok().flatten()?;
    Some(User { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

fn limits(table: &mut Section<'_, '_>) -> ResourceLimits {
    let default = ResourceLimits::default();
    // RLIMIT_CPU has a resolution of seconds; 0 kills the process immediately.
    let cpu_time = table.read("cpu_time", duration(Duration::from_secs(1)..=MAX_DURATION));
    ResourceLimits {
        cpu_time: cpu_time.or(default.cpu_time),
        file_size: table.read("file_size", size(0..=1 << 50)).or(default.file_size),
        open_files: table.read("open_files", integer(16..=1_048_576)).or(default.open_files),
        processes: table.read("processes", integer(1..=1_048_576)).or(default.processes),
        // The C library does not load with less.
        address_space: table
            .read("address_space", size(16 << 20..=1 << 50))
            .or(default.address_space),
        disk: table.read("disk", size(0..=1 << 50)).unwrap_or(default.disk),
        memory: table.read("memory", size(16 << 20..=1 << 50)).or(default.memory),
        cpu_percent: table.read("cpu_percent", integer(1..=100_000)).or(default.cpu_percent),
    }
}

/// Parses an environment variable. Errors hide the value, since it may be a licence key.
fn variable(name: &str, value: RawValue<'_>) -> ParseResult<(OsString, OsString)> {
    let mut bytes = name.bytes();
    let valid = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !valid {
        return value.invalid_secret("a name of [A-Za-z0-9_] that does not start with a digit");
    }
    if name == RESERVED_VARIABLE {
        return value.invalid_secret("another name: the service sets this variable for each job");
    }
    Ok((name.into(), types::secret(value)?.into()))
}

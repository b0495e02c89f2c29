//! `[sandbox]`.

use std::{ffi::OsString, path::PathBuf};

use mcs_sandbox::{Cgroup, Layer, Mode, NetworkAccess, Paths, Policy, ResourceLimits, User};

use super::prelude::*;

/// The unprivileged user on most distributions.
const DEFAULT_USER: &str = "nobody";

const USER_EXPECTED: &str = "a user name or \"uid:gid\", not root";

/// Set per job: with a shared directory, a job could access the files of another.
const RESERVED_VARIABLE: &str = "TMPDIR";

keys! {
    Policy {
        mode = group(),
        network = group(),
        paths = group(),
        user = SandboxUser,
        environment = environment(),
        limits = within("sandbox.limits", group()),
        cgroup = DelegatedCgroup,
    }
}

keys! {
    ResourceLimits {
        // RLIMIT_CPU has a resolution of seconds; 0 kills the process immediately.
        cpu_time = optional(duration(SECOND..=MAX_DURATION)),
        file_size = optional(size(0..=PEBIBYTE)),
        open_files = optional(integer(16..=1_048_576)),
        processes = optional(integer(1..=1_048_576)),
        // The C library does not load with less.
        address_space = optional(size(16 << 20..=PEBIBYTE)),
        disk = size(0..=PEBIBYTE),
        memory = optional(size(16 << 20..=PEBIBYTE)),
        cpu_percent = optional(integer(1..=100_000)),
    }
}

/// `sandbox.mode`, without the layers in `sandbox.require`.
#[derive(Clone, Copy, PartialEq)]
enum Strictness {
    Enforce,
    Strict,
    Degraded,
}

impl KeyGroup for Mode {
    fn read(sandbox: &mut Section<'_, '_>) -> Option<Self> {
        let strictness = strictness().read(sandbox, "mode");
        let required = required_layers().read(sandbox, "require")?;
        if strictness != Some(Strictness::Strict) && !required.is_empty() {
            sandbox
                .conflict("require", "found layers, expected sandbox.mode = \"strict\" with them");
        }
        Some(match strictness? {
            Strictness::Enforce => Self::Enforce,
            Strictness::Strict => Self::Strict(required),
            Strictness::Degraded => {
                sandbox.warn(Warning::DegradedSandbox);
                Self::Degraded
            }
        })
    }

    fn write(&self, lines: &mut Lines) {
        let (mode, required) = match self {
            Self::Enforce => (Strictness::Enforce, Vec::new()),
            Self::Strict(required) => (Strictness::Strict, required.clone()),
            Self::Degraded => (Strictness::Degraded, Vec::new()),
        };
        strictness().write(&mode, "mode", lines);
        required_layers().write(&required, "require", lines);
    }
}

fn strictness() -> Key<Strictness> {
    use Strictness::{Degraded, Enforce, Strict};
    choice([("enforce", Enforce), ("strict", Strict), ("degraded", Degraded)])
}

fn required_layers() -> Key<Vec<Layer>> {
    list(choice(Layer::ALL.map(|layer| (layer.name(), layer))))
}

impl KeyGroup for NetworkAccess {
    fn read(sandbox: &mut Section<'_, '_>) -> Option<Self> {
        let host = host_network().read(sandbox, "network");
        let ports = tcp_ports().read(sandbox, "tcp_ports")?;
        Some(match (host?, ports.is_empty()) {
            (true, false) => {
                sandbox.conflict(
                    "tcp_ports",
                    "found ports beside sandbox.network = \"host\", which allows all ports; expected one of the two",
                );
                Self::None
            }
            (true, true) => Self::Host,
            (false, true) => Self::None,
            (false, false) => Self::Ports(ports),
        })
    }

    fn write(&self, lines: &mut Lines) {
        let ports = if let Self::Ports(ports) = self { ports.clone() } else { Vec::new() };
        host_network().write(&matches!(self, Self::Host), "network", lines);
        tcp_ports().write(&ports, "tcp_ports", lines);
    }
}

fn host_network() -> Key<bool> {
    choice([("none", false), ("host", true)])
}

fn tcp_ports() -> Key<Vec<u16>> {
    list(integer(1..=u16::MAX))
}

impl KeyGroup for Paths {
    fn read(sandbox: &mut Section<'_, '_>) -> Option<Self> {
        let unix_sockets = sockets().read(sandbox, "unix_sockets");
        let read_only = visible_paths().read(sandbox, "read_only_paths")?;
        let writable = visible_paths().read(sandbox, "writable_paths")?;
        for path in &writable {
            sandbox.warn(Warning::Writable(path.clone()));
        }
        // Sockets are not checked: a service may create its socket later.
        for path in read_only.iter().chain(&writable).filter(|path| !path.exists()) {
            sandbox.warn(Warning::MissingPath(path.clone()));
        }
        Some(Self { read_only, writable, unix_sockets: unix_sockets? })
    }

    fn write(&self, lines: &mut Lines) {
        sockets().write(&self.unix_sockets, "unix_sockets", lines);
        visible_paths().write(&self.read_only, "read_only_paths", lines);
        visible_paths().write(&self.writable, "writable_paths", lines);
    }
}

/// Paths that would expose other processes, kernel settings or devices to scripts.
pub const FORBIDDEN_PATHS: [&str; 3] = ["/proc", "/sys", "/dev"];

fn visible_paths() -> Key<Vec<PathBuf>> {
    visible(paths::path)
}

fn sockets() -> Key<Vec<PathBuf>> {
    visible(paths::socket)
}

fn visible(parse: fn(RawValue<'_>) -> ParseResult<PathBuf>) -> Key<Vec<PathBuf>> {
    let is_allowed = |path: &PathBuf| {
        let is_forbidden = FORBIDDEN_PATHS.iter().any(|forbidden| path.starts_with(forbidden));
        path.parent().is_some() && !is_forbidden
    };
    let expected = "a path other than / and outside /proc, /sys and /dev";
    list(paths::key(parse).filter(is_allowed, expected))
}

/// The user to switch to, or `None` if scripts run as the service's user.
struct SandboxUser;

impl Field for SandboxUser {
    type Value = Option<User>;

    fn read(&self, sandbox: &mut Section<'_, '_>, key: &'static str) -> Option<Option<User>> {
        let server = sandbox.server();
        let configured = user().read(sandbox, key)?;
        if sandbox.has(key) {
            let user = configured?;
            if server.uid != 0 && user != server {
                sandbox.conflict(
                    key,
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
            sandbox.missing(key, &format!("{USER_EXPECTED}, since the service runs as root"));
            return None;
        };
        sandbox.warn(Warning::SharedUser(DEFAULT_USER));
        Some(Some(user))
    }

    fn write(&self, value: &Option<User>, key: &'static str, lines: &mut Lines) {
        user().write(value, key, lines);
    }
}

fn user() -> Key<Option<User>> {
    optional(Key::new(parse_user, |user| format::quoted(&format!("{}:{}", user.uid, user.gid))))
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

/// Not configurable.
struct DelegatedCgroup;

impl Field for DelegatedCgroup {
    type Value = Cgroup;

    fn read(&self, _: &mut Section<'_, '_>, _: &'static str) -> Option<Cgroup> {
        Some(Cgroup::Delegated)
    }

    fn write(&self, _: &Cgroup, _: &'static str, _: &mut Lines) {}
}

/// Displayed without the values, which may be secrets.
fn environment() -> Key<Vec<(OsString, OsString)>> {
    Key::new(
        |value| parse_table(value, variable),
        |variables| {
            let names = variables.iter().map(|(name, _)| name.to_string_lossy());
            format::table(names.map(|name| (name, format::quoted(format::SECRET))))
        },
    )
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
    Ok((name.into(), parse_secret(value)?.into()))
}

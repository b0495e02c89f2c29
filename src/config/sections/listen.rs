//! The address of a listener: `host` and `port`, or `socket`.

use std::{fmt, net::IpAddr, path::PathBuf};

use super::prelude::*;

/// Maximum length of a socket path, in bytes: `sun_path` has 108 bytes including the NUL. unix(7).
const MAX_SOCKET_PATH: usize = 107;

/// An address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// TCP host and port.
    Tcp {
        /// Address literal or host name. `::` accepts IPv4 connections too where the system supports it.
        host: String,
        /// Port; 0 selects a free one.
        port: u16,
    },
    /// Path of a Unix socket. A stale socket at the path is replaced.
    Unix(PathBuf),
}

/// Host and port, or the path.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Listen {
    /// Returns whether both addresses are the same, so that only one of them can be bound. TCP port 0 never
    /// conflicts.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self == other && !matches!(self, Self::Tcp { port: 0, .. })
    }

    /// Reads an address without a default. If none is configured, returns the socket with this name in the directory that
    /// the service manager passed.
    pub(super) fn read_or_in_runtime_directory(
        section: &mut Section<'_, '_>,
        name: &str,
    ) -> ConfiguredListen {
        let host = optional(host()).read(section, "host");
        let port = optional(port()).read(section, "port");
        let socket = socket().read(section, "socket");
        reject_both(section);
        let (Some(host), Some(port), Some(socket)) = (host, port, socket) else {
            return ConfiguredListen::Invalid;
        };
        match (socket, host, port) {
            (Some(path), ..) => ConfiguredListen::Valid(Self::Unix(path)),
            (None, Some(host), Some(port)) => ConfiguredListen::Valid(Self::Tcp { host, port }),
            (None, None, None) => match section.runtime_directory() {
                Some(directory) => ConfiguredListen::Valid(Self::Unix(directory.join(name))),
                None => ConfiguredListen::Missing,
            },
            (None, Some(_), None) => {
                section.missing("port", "a port, since host is set");
                ConfiguredListen::Invalid
            }
            (None, None, Some(_)) => {
                section.missing("host", "an address, since port is set");
                ConfiguredListen::Invalid
            }
        }
    }
}

/// An address that has no default.
pub(super) enum ConfiguredListen {
    Valid(Listen),
    /// Neither an address nor a runtime directory is configured.
    Missing,
    /// The problem was recorded.
    Invalid,
}

/// Rejects a TCP address beside a socket.
fn reject_both(section: &mut Section<'_, '_>) {
    for key in ["host", "port"] {
        if section.has("socket") && section.has(key) {
            section.conflict(key, "found beside socket, expected one of the two");
        }
    }
}

impl KeyGroup for Listen {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let host = host().read(section, "host");
        let port = port().read(section, "port");
        let socket = socket().read(section, "socket")?;
        reject_both(section);
        Some(match socket {
            Some(path) => Self::Unix(path),
            None => Self::Tcp { host: host?, port: port? },
        })
    }

    fn write(&self, lines: &mut Lines) {
        match self {
            Self::Tcp { host: name, port: number } => {
                host().write(name, "host", lines);
                port().write(number, "port", lines);
            }
            Self::Unix(path) => socket().write(&Some(path.clone()), "socket", lines),
        }
    }
}

/// An IP address, with or without brackets, or a host name.
fn host() -> Key<String> {
    const EXPECTED: &str = "an address or a name without port, like \"127.0.0.1\" or \"::\"";
    Key::new(
        |value| {
            let Some(text) = value.text() else { return value.invalid(EXPECTED) };
            if text.starts_with("unix:") || text.starts_with('/') {
                return value.invalid(format!(
                    "{EXPECTED}; the path of a socket belongs in the key socket"
                ));
            }
            let literal = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let literal = literal.unwrap_or(text);
            if literal.parse::<IpAddr>().is_ok() {
                return Ok(literal.into());
            }
            match url::Host::parse(text) {
                // `Host::parse` takes `1` for an IPv4 address; that is probably a mistake.
                Ok(url::Host::Domain(name)) => Ok(name),
                _ => value.invalid(EXPECTED),
            }
        },
        |host: &String| format::quoted(host),
    )
}

fn port() -> Key<u16> {
    integer(0..=u16::MAX)
}

fn socket() -> Key<Option<PathBuf>> {
    let parse = |value: RawValue<'_>| {
        let path = paths::socket(value)?;
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return value.invalid(format!("a path of at most {MAX_SOCKET_PATH} bytes"));
        }
        Ok(path)
    };
    optional(paths::key(parse))
}

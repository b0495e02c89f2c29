//! `[clamd]`.

use std::{fmt, net::Ipv6Addr, path::PathBuf, time::Duration};

use super::{
    bounds::{Bounds, timeout},
    prelude::*,
};

settings! {
    /// `[clamd]`, validated.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Settings {
        /// Addresses of the daemons, at least one.
        pub addresses: Vec<Address> =
            list(Key::new(address, |address| format::quoted(&address.to_string())))
                .filter(|addresses| !addresses.is_empty(), "at least one"),
        /// Time limit for one file, over all daemons that are tried.
        pub timeout: Duration = timeout(),
        /// Size bound, and effect of failures.
        pub bounds: Bounds = group(),
    }
}

/// Address of a daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Parses a socket path if the text begins with `unix:` or contains a slash, otherwise a host and port, which may follow
/// `tcp://`.
fn address(value: RawValue<'_>) -> ParseResult<Address> {
    const EXPECTED: &str =
        "a socket path or HOST:PORT, like \"/run/clamav/clamd.ctl\" or \"127.0.0.1:3310\"";
    let text = parse_text(value).or_else(|_| value.invalid(EXPECTED))?;
    let tcp = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("tcp:"));
    if tcp.is_none() && (text.starts_with("unix:") || text.contains('/')) {
        if text.contains("://") && !text.starts_with("unix://") {
            return value.invalid(EXPECTED);
        }
        return paths::socket(value).map(Address::Unix);
    }
    let text = tcp.map_or(text.as_str(), |rest| rest.trim_end_matches('/'));
    let Some((written, port)) = text.rsplit_once(':') else { return value.invalid(EXPECTED) };
    let host = match written.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(Some(inner)) if inner.parse::<Ipv6Addr>().is_ok() => inner,
        None if !written.contains([':', '[', ']']) => written,
        _ => return value.invalid(EXPECTED),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    match port.parse::<u16>() {
        Ok(port) if port > 0 && !host.is_empty() && host.chars().all(is_name) => {
            Ok(Address::Tcp { host: host.to_owned(), port })
        }
        _ => value.invalid(EXPECTED),
    }
}

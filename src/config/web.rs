//! `[web]`, and the keys of `[download]` about incoming requests.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{
    paths,
    reader::{Reader, Section},
    types::{self, duration, integer, memory_size, size},
    value::{ParseResult, RawValue},
};
use crate::http::{Listen, Settings, TrustedNetwork};

/// Maximum length of a socket path, in bytes: `sun_path` has 108 bytes including the NUL. unix(7).
const MAX_SOCKET_PATH: usize = 107;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

pub(super) fn read(reader: &mut Reader<'_>) -> Settings {
    let mut download = reader.section("download");
    let trusted_proxies =
        download.read("trusted_proxies", types::list(network)).unwrap_or_default();

    let mut web = reader.section("web");
    Settings {
        listen: listen(&mut web, 8080),
        max_body_size: web.read("max_body_size", memory_size(1024..=64 << 20)).unwrap_or(128 << 10),
        max_connections: web.read("max_connections", integer(1..=1_000_000)).unwrap_or(2048),
        header_timeout: web
            .read("header_timeout", duration(MILLISECOND..=HOUR))
            .unwrap_or(10 * SECOND),
        idle_timeout: web.read("idle_timeout", duration(MILLISECOND..=HOUR)).unwrap_or(60 * SECOND),
        min_rate: web.read("min_rate", size(0..=1 << 30)).unwrap_or(4 << 10),
        trusted_proxies,
    }
}

/// Reads `host` and `port`, or `socket`.
pub(super) fn listen(section: &mut Section<'_, '_>, default_port: u16) -> Listen {
    let host = section.read("host", host).unwrap_or_else(|| "127.0.0.1".into());
    let port = section.read("port", integer(0..=u16::MAX)).unwrap_or(default_port);
    let socket = section.read("socket", socket);
    for key in ["host", "port"] {
        if section.has("socket") && section.has(key) {
            section.conflict(key, "found beside socket, expected one of the two");
        }
    }
    socket.map_or(Listen::Tcp { host, port }, Listen::Unix)
}

/// Parses an IP address, with or without brackets, or a host name.
fn host(value: RawValue<'_>) -> ParseResult<String> {
    const EXPECTED: &str = "an address or a name without port, like \"127.0.0.1\" or \"::\"";
    let Some(text) = value.text() else { return value.invalid(EXPECTED) };
    let literal = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if literal.parse::<IpAddr>().is_ok() {
        return Ok(literal.into());
    }
    match url::Host::parse(text) {
        // `Host::parse` takes `1` for an IPv4 address; that is probably a mistake.
        Ok(url::Host::Domain(name)) => Ok(name),
        _ => value.invalid(EXPECTED),
    }
}

fn socket(value: RawValue<'_>) -> ParseResult<PathBuf> {
    let path = paths::path(value)?;
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return value.invalid(format!("a path of at most {MAX_SOCKET_PATH} bytes"));
    }
    Ok(path)
}

fn network(value: RawValue<'_>) -> ParseResult<TrustedNetwork> {
    let parse =
        |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    match value.text().and_then(parse) {
        Some(net) => Ok(TrustedNetwork { address: net.network(), prefix: net.prefix_len() }),
        None => value.invalid("a network like \"10.0.0.0/8\", or an address"),
    }
}

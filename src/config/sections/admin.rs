//! `[admin]`.

use std::path::PathBuf;

use super::{
    listen::{ConfiguredListen, Listen},
    prelude::*,
};

/// Name of the socket in the directory that the service manager passed.
const SOCKET_NAME: &str = "admin.sock";

/// `[admin]`, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Address to listen on.
    pub listen: Listen,
    /// File with the token of each request.
    pub token_path: PathBuf,
    /// Names that a request may have as its host, besides addresses. Lower case.
    pub hosts: Vec<String>,
}

/// `None` if the listener is disabled.
impl KeyGroup for Option<Settings> {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let enabled = boolean().read(section, "enabled");
        let token_path = token_path().read(section, "token_path");
        let hosts = hosts().read(section, "hosts");
        let listen = Listen::read_or_in_runtime_directory(section, SOCKET_NAME);
        if !enabled? {
            section.warn_unused(|_| true, "admin.enabled is false");
            return Some(None);
        }
        if token_path == Some(None) {
            section.missing(
                "token_path",
                "the path of a file with a secret token, which each request must have \
                 (openssl rand -hex 32)",
            );
        }
        let listen = match listen {
            ConfiguredListen::Valid(listen) => listen,
            ConfiguredListen::Missing => {
                section.missing(
                    "socket",
                    "the path of a socket, host and port, or a runtime directory of the service manager",
                );
                return None;
            }
            ConfiguredListen::Invalid => return None,
        };
        Some(Some(Settings { listen, token_path: token_path??, hosts: hosts? }))
    }

    fn write(&self, lines: &mut Lines) {
        boolean().write(&self.is_some(), "enabled", lines);
        if let Some(settings) = self {
            settings.listen.write(lines);
            token_path().write(&Some(settings.token_path.clone()), "token_path", lines);
            hosts().write(&settings.hosts, "hosts", lines);
        }
    }
}

fn token_path() -> Key<Option<PathBuf>> {
    optional(paths::key(paths::path))
}

fn hosts() -> Key<Vec<String>> {
    list(Key::new(
        |value| match value.text().map(url::Host::parse) {
            Some(Ok(url::Host::Domain(name))) => Ok(name),
            _ => value.invalid("a host name without port"),
        },
        |name: &String| format::quoted(name),
    ))
}

//! What of the file system a program has: the one list by which the minimal root is built and Landlock's rules are made.
//! What is not there is left out.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::policy::{Network, Paths};

/// Programs and libraries. On merged systems all but the first are links.
pub(crate) const SYSTEM: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// What libraries and interpreters look up in /etc, all of it readable by everybody: no keys, no passwords, nothing of the
/// services that run here.
const ETC: &[&str] = &[
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/perl",
    "/etc/pki/tls/certs",
    "/etc/python3",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
];

/// For names of hosts.
const NETWORK: &[&str] = &[
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
];

/// Devices that hold nothing.
pub(crate) const DEVICES: &[&str] =
    &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// What is added for the policy of one sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) network: Network,
    pub(crate) paths: Paths,
}

impl View {
    /// Files and directories to read and execute, beside [`SYSTEM`].
    pub(crate) fn readable(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let network = if self.network == Network::None { [].as_slice() } else { NETWORK };
        let own = self.paths.read_only.iter().cloned();
        ETC.iter().chain(network).map(PathBuf::from).chain(own)
    }

    /// Whether a program has this path. By its words: links are not looked at.
    pub(crate) fn shows(&self, path: &Path, write: bool, job: &Path) -> bool {
        let within = |shown: &Path| path.starts_with(shown);
        let writable = within(job)
            || DEVICES.iter().any(|device| within(Path::new(device)))
            || self.paths.writable.iter().any(|shown| within(shown));
        writable
            || (!write
                && (SYSTEM.iter().any(|shown| within(Path::new(shown)))
                    || self.readable().any(|shown| within(&shown))))
    }
}

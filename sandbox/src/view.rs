//! Paths that programs can access. The minimal root and the Landlock rules are both built from this list. Missing paths
//! are skipped.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::policy::{NetworkAccess, Paths};

/// Programs and libraries. On systems with a merged /usr all but the first are links.
pub(crate) const SYSTEM: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// World-readable files in /etc that libraries and interpreters use. The list excludes keys, passwords and the
/// configuration of services.
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

/// Files for name resolution.
const NETWORK: &[&str] = &[
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
];

/// Devices without access to hardware or data.
pub(crate) const DEVICES: &[&str] =
    &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Paths and network access that one policy adds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) network: NetworkAccess,
    pub(crate) paths: Paths,
}

impl View {
    /// Returns files and directories that can be read and executed, in addition to [`SYSTEM`].
    pub(crate) fn readable(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let network = if self.network == NetworkAccess::None { [].as_slice() } else { NETWORK };
        let own = self.paths.read_only.iter().cloned();
        ETC.iter().chain(network).map(PathBuf::from).chain(own)
    }

    /// Whether a program can access `path`. Compares path components; links are not resolved.
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

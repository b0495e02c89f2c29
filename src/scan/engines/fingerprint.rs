//! Fingerprints of engines: SHA-256 of the settings and contents that determine the findings. Equal in all processes, on all
//! machines and in later releases, so that stored verdicts stay valid. The paths of the script and of the rules, and the
//! hosts and ports of servers, are not part of them. The script's sandbox paths and environment, and the path and query of
//! ICAP URLs, are.

use mcs_filetype::MimeRules;
use mcs_sandbox::{NetworkAccess, Paths, Policy};
use sha2::{Digest as _, Sha256};

use super::{
    icap::Method,
    names::{CLAMD, HASHES, ICAP, RULES, SCRIPT},
    settings::EngineSettings,
};
use crate::scan::settings::Settings;

/// Changed when the same settings have another meaning.
const FORMAT: &str = "engines 1";

/// Prefixes each value with its length, so that different sequences have different hashes.
pub(super) struct FingerprintHasher(Sha256);

impl FingerprintHasher {
    pub(super) fn new(label: &str) -> Self {
        Self(Sha256::new()).bytes(label.as_bytes())
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// A number that may be absent.
    pub(super) fn optional(self, number: Option<u64>) -> Self {
        match number {
            Some(number) => self.number(number),
            None => self.bytes(b""),
        }
    }

    /// Values of any number.
    pub(super) fn list<T>(self, list: &[T], add: impl Fn(Self, &T) -> Self) -> Self {
        list.iter().fold(self.number(list.len() as u64), add)
    }

    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    /// Returns the first eight bytes of the hash.
    pub(super) fn short(self) -> u64 {
        let digest = self.finish();
        u64::from_le_bytes(digest.first_chunk().copied().unwrap_or_default())
    }
}

/// Returns the fingerprint of the engines and of the settings that determine what they find, without the contents and the
/// conditions of the script. Policies are not part of it, so that a changed policy applies to stored outcomes.
pub(super) fn of_settings(settings: &Settings) -> [u8; 32] {
    let hash = FingerprintHasher::new(FORMAT).list(&settings.engines, |hash, engine| {
        let hash = match engine {
            EngineSettings::Script(_) => hash.text(SCRIPT),
            EngineSettings::Rules(rules) => {
                let mut ignored: Vec<_> = rules.ignore.iter().map(String::as_str).collect();
                ignored.sort_unstable();
                ignored.dedup();
                hash.text(RULES)
                    .bytes(&rules.rules.digest())
                    .list(&ignored, |hash, name| hash.text(name))
            }
            EngineSettings::Hashes(hashes) => {
                hash.text(HASHES).list(&hashes.lists.set.digest(), |hash, list| hash.bytes(list))
            }
            EngineSettings::Clamd(_) => hash.text(CLAMD),
            // The path of the URL selects the service of the server.
            EngineSettings::Icap(icap) => hash
                .text(ICAP)
                .list(&icap.urls, |hash, url| hash.text(url.path()).text(url.query().unwrap_or("")))
                .text(match icap.method {
                    Method::Respmod => "respmod",
                    Method::Reqmod => "reqmod",
                })
                .number(icap.preview.into()),
        };
        hash.optional(engine.bounds().max_size)
    });
    let unpack = settings.unpack.as_ref().map(|unpack| &unpack.limits);
    let hash = match unpack {
        Some(limits) => hash
            .text("unpack")
            .number(limits.enabled.into())
            .list(&[limits.max_total, limits.max_file, limits.max_files], |hash, n| hash.number(*n))
            .number(limits.max_depth.into()),
        None => hash.text("no unpacking"),
    };
    // The lists of types that apply inside files. A change of other lists needs no new scan.
    let hash = match settings.inner_types() {
        MimeRules::All => hash.text("all types"),
        MimeRules::Only(types) => {
            types.iter().fold(hash.text("only"), |hash, name| hash.text(name))
        }
        MimeRules::AllBut(types) => {
            types.iter().fold(hash.text("all but"), |hash, name| hash.text(name))
        }
    };
    hash.number(settings.max_output_size as u64).finish()
}

/// Returns the fingerprint of what determines the results of a script, except its contents: its arguments, the meaning of
/// its exit codes, and what it can use in the sandbox.
pub(super) fn of_script(settings: &Settings, policy: &Policy) -> [u8; 32] {
    let hash = FingerprintHasher::new("script 1")
        .list(&settings.script_args, |hash, arg| hash.bytes(arg.as_encoded_bytes()))
        .list(&settings.failure_exit_codes, |hash, code| hash.bytes(&code.to_le_bytes()));
    let hash = match &policy.network {
        NetworkAccess::None => hash.text("no network"),
        NetworkAccess::Ports(ports) => {
            hash.text("ports").list(ports, |hash, port| hash.number((*port).into()))
        }
        NetworkAccess::Host => hash.text("network"),
    };
    let Paths { read_only, writable, unix_sockets } = &policy.paths;
    let hash = [read_only, writable, unix_sockets].into_iter().fold(hash, |hash, paths| {
        // The script itself counts with its contents.
        let others = paths.iter().filter(|path| Some(*path) != settings.script.as_ref());
        let others: Vec<_> = others.collect();
        hash.list(&others, |hash, path| hash.bytes(path.as_os_str().as_encoded_bytes()))
    });
    let limits = &policy.limits;
    [limits.file_size, limits.open_files, limits.processes, limits.address_space, limits.memory]
        .into_iter()
        .fold(hash, FingerprintHasher::optional)
        .number(limits.disk)
        .list(&policy.environment, |hash, (name, value)| {
            hash.bytes(name.as_encoded_bytes()).bytes(value.as_encoded_bytes())
        })
        .finish()
}

#[cfg(test)]
mod tests;

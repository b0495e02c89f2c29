//! Problems, which make a configuration invalid, and warnings. A problem names its location, the key,
//! what was found and what was expected; of a secret, only the type.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use mcs_evaluator::ListSummary;

use super::format;
use crate::ownership::Exposure;

/// Where a value was set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// The configuration file as a whole.
    File(Arc<Path>),
    Line {
        file: Arc<Path>,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// The environment variable of this name.
    Environment(String),
    /// No location: there is no configuration file.
    Defaults,
}

/// An error in the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub location: Location,
    /// Path of the key, e.g. `web.port`; `None` if the file itself is invalid.
    pub key: Option<String>,
    /// What was found and what was expected.
    pub message: String,
}

/// Text of the warning about `scan.canary = "off"`.
const CANARY_OFF: &str = "scan.canary: off, so an engine that stops detecting anything, for instance without \
signatures, is not noticed; use \"eicar\" or samples of your own";

/// Text of the warning about `sandbox.mode = "degraded"`.
const DEGRADED_SANDBOX: &str = "sandbox.mode is degraded: missing sandbox layers are ignored, and a file that takes over \
a scanner may reach the machine; use \"enforce\" in production";

/// Text of the warning about a small `scan.max_spool_size`.
const TIGHT_SPOOL: &str = "scan.max_spool_size: less than twice download.max_size; a file may need twice its size \
in the spool, so the largest files are rejected as too large";

/// All problems of a configuration; never empty.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct ConfigErrors(pub(super) Vec<Problem>);

/// A valid setting that is probably unintended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Warning {
    /// The script runs as this user, which other services may use too.
    SharedUser(&'static str),
    /// `scan.temp_directory_shared` accepts a directory that other users can replace.
    SharedTempDirectory(Exposure),
    /// A path in `sandbox.writable_paths`.
    Writable(PathBuf),
    /// A path made visible to scripts that does not exist.
    MissingPath(PathBuf),
    /// A limit without effect, because a smaller one applies first.
    NeverReached {
        /// The limit without effect.
        key: &'static str,
        /// The smaller limit.
        because: &'static str,
    },
    /// `scan.max_spool_size` is less than twice `download.max_size`.
    TightSpool,
    /// A header in `download.headers_to_forward` that is always forwarded.
    AlwaysForwarded(&'static str),
    /// A list of hashes with entries that are not used.
    UnusedHashes(ListSummary),
    /// Keys that are set and have no effect.
    Unused {
        /// Paths of the keys; never empty.
        keys: Vec<String>,
        /// Why they have none.
        since: String,
    },
    /// The size bound of an engine, which rejects files that `download.max_size` permits.
    RejectedBySize {
        /// The size bound.
        key: &'static str,
        /// Its value, bytes.
        limit: u64,
        /// What happens to larger files.
        outcome: &'static str,
    },
    /// No sample tests the engines.
    CanaryOff,
    /// Missing layers of the sandbox are accepted.
    DegradedSandbox,
    /// A network in `download.trusted_proxies` that contains every address.
    TrustsAllAddresses(String),
    /// Variables that Kubernetes sets in each pod for a service whose name begins with `mcs`.
    ServiceLinks(Vec<String>),
}

/// An invalid value of a key.
pub(super) struct InvalidValue {
    /// The invalid part of the value: `[2]`, `.name`, or empty for the whole value.
    part: String,
    found: String,
    expected: String,
}

impl InvalidValue {
    /// Creates a list of one error; parsers of lists and tables return several.
    pub(super) fn single(found: impl Into<String>, expected: impl Into<String>) -> Vec<Self> {
        vec![Self { part: String::new(), found: found.into(), expected: expected.into() }]
    }

    /// Prefixes the part with an enclosing list index or table key.
    pub(super) fn nested_in(mut self, part: &str) -> Self {
        self.part.insert_str(0, part);
        self
    }

    pub(super) fn into_problem(self, location: Location, key: &str) -> Problem {
        Problem {
            location,
            key: Some(format!("{key}{}", self.part)),
            message: format!("found {}, expected {}", self.found, self.expected),
        }
    }
}

impl ConfigErrors {
    /// Returns the problems in the order of sections and keys.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.location)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Line { file, line, column } => {
                write!(f, "{}:{line}:{column}", file.display())
            }
            Self::Environment(name) => f.write_str(name),
            Self::Defaults => f.write_str("no configuration file (see -c)"),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedUser(name) => write!(
                f,
                "sandbox.user: not set, so scripts run as {name}, which other services may use too; a \
                 dedicated user is safer"
            ),
            Self::SharedTempDirectory(exposure) => write!(
                f,
                "scan.temp_directory: {exposure}; scan.temp_directory_shared accepts that: users with \
                 access to it can read and replace media during a scan"
            ),
            Self::Writable(path) => write!(
                f,
                "sandbox.writable_paths: files in {} persist between scripts and are readable by \
                 later ones",
                path.display()
            ),
            Self::MissingPath(path) => write!(
                f,
                "sandbox: {} does not exist; scripts cannot access it until it is created",
                path.display()
            ),
            Self::NeverReached { key, because } => {
                write!(f, "{key}: has no effect, since {because} is smaller")
            }
            Self::TightSpool => f.write_str(TIGHT_SPOOL),
            Self::UnusedHashes(ListSummary { list, used, total }) => {
                write!(f, "hashes: {used} of {total} signatures of {list} are used")
            }
            Self::AlwaysForwarded(name) => {
                write!(
                    f,
                    "download.headers_to_forward: {name} is always forwarded and need not be listed"
                )
            }
            Self::Unused { keys, since } => {
                let verb = if keys.len() == 1 { "has" } else { "have" };
                write!(f, "{}: {verb} no effect, since {since}", keys.join(", "))
            }
            Self::RejectedBySize { key, limit, outcome } => {
                let size = format::spaced_size(*limit);
                write!(f, "{key}: files above {size} {outcome}, since download.max_size is larger")
            }
            Self::CanaryOff => f.write_str(CANARY_OFF),
            Self::DegradedSandbox => f.write_str(DEGRADED_SANDBOX),
            Self::TrustsAllAddresses(network) => write!(
                f,
                "download.trusted_proxies: {network} contains every address, so any client can \
                 name another client's address and host; list the addresses of your reverse proxy only"
            ),
            Self::ServiceLinks(names) => write!(
                f,
                "{}: ignored, since Kubernetes sets {} for a service (enableServiceLinks: false in the pod \
                 prevents that)",
                names.join(", "),
                if names.len() == 1 { "it" } else { "them" },
            ),
        }
    }
}

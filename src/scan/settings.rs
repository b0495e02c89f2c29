//! The validated settings of `[scan]`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use mcs_filetype::MimeRules;

use super::engines;

/// `[scan]`, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engines, at least one, each kind at most once. All must report a file clean.
    pub engines: Vec<engines::EngineSettings>,
    /// Effect of contents that need a password, detected by the service or by an engine.
    pub on_encrypted: engines::ContentPolicy,
    /// Effect of a limit inside the file at which an engine stopped.
    pub on_limit: engines::ContentPolicy,
    /// Interval at which remote engines are asked for their versions.
    pub version_interval: Duration,
    /// The script, if it is one of the engines.
    pub script: Option<PathBuf>,
    /// The script's arguments; the path of the file is appended.
    pub script_args: Vec<OsString>,
    /// Time limit of one run of the script.
    pub timeout: Duration,
    /// Time limit from acceptance of a request to its verdict.
    pub deadline: Duration,
    /// Number of concurrent jobs, 1..=1024.
    pub workers: usize,
    /// Number of concurrent programs in the sandbox, 1..=workers.
    pub max_scripts: usize,
    /// Time after which a program is demoted while another tenant waits for a scan slot.
    pub slow_after: Duration,
    /// Maximum number of waiting jobs, 1..=65536.
    pub queue_capacity: usize,
    /// Absolute path, of `[A-Za-z0-9._/-]+`, because scripts leave `$1` unquoted.
    pub temp_directory: PathBuf,
    /// Whether other users may be able to replace the directory.
    pub temp_directory_shared: bool,
    /// Disk limit of all jobs and of all bodies being served, bytes.
    pub max_spool_size: u64,
    /// Program and arguments; the path of the file is appended.
    pub removal_command: Option<(PathBuf, Vec<OsString>)>,
    /// The allowed types, by content.
    pub mime: MimeRules,
    /// Maximum length of a finding, bytes.
    pub max_output_size: usize,
    /// Exit codes of the script that are failures rather than verdicts; never contains 0.
    pub failure_exit_codes: Vec<i32>,
    /// The canary, if there is one.
    pub canary: Option<CanarySettings>,
}

impl Settings {
    /// Returns `[rules]`, if the rules are one of the engines.
    #[must_use]
    pub fn rules(&self) -> Option<&engines::rules::Settings> {
        self.engines.iter().find_map(|engine| match engine {
            engines::EngineSettings::Rules(rules) => Some(rules),
            _ => None,
        })
    }

    /// Returns the sum of all engines' time limits.
    #[must_use]
    pub fn time_limits(&self) -> Duration {
        let limit = |engine: &engines::EngineSettings| match engine {
            engines::EngineSettings::Script(_) => self.timeout,
            engines::EngineSettings::Rules(rules) => rules.timeout,
            engines::EngineSettings::Clamd(clamd) => clamd.timeout,
            engines::EngineSettings::Icap(icap) => icap.timeout,
        };
        self.engines.iter().map(limit).fold(Duration::ZERO, Duration::saturating_add)
    }
}

/// `scan.canary`, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CanarySettings {
    /// The samples.
    pub samples: CanarySamples,
    /// Interval after a right result.
    pub interval: Duration,
}

/// A sample that every engine must report as not clean, and one that it must report as clean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CanarySamples {
    /// The EICAR test file, and a line of text.
    Eicar,
    /// The operator's own files, read for each run.
    Files { infected: PathBuf, clean: PathBuf },
}

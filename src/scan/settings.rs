//! `[scan]` and what belongs to it, checked. Knows nothing of the file that it comes from.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use super::{canary, encrypted::OnEncrypted, engines, filetype};

/// `[scan]`, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who has to agree: at least one, each kind once.
    pub engines: Vec<engines::Kind>,
    /// The outcome for contents that need a password, by their own headers or by an engine's word.
    pub on_encrypted: OnEncrypted,
    /// How often engines are asked for their versions.
    pub version_interval: Duration,
    /// The script, where it is one of them, and the arguments before the media's path.
    pub script: Option<PathBuf>,
    #[expect(missing_docs, reason = "see `script`")]
    pub script_args: Vec<OsString>,
    /// The script's time limit.
    pub timeout: Duration,
    /// From acceptance to verdict.
    pub deadline: Duration,
    /// Jobs in progress at a time, 1..=1024.
    pub workers: usize,
    /// Scripts at a time, 1..=workers.
    pub max_scripts: usize,
    /// Jobs waiting, 1..=65536.
    pub queue_capacity: usize,
    /// Absolute; matches `[A-Za-z0-9._/-]+`, since scripts leave `$1` unquoted.
    pub temp_directory: PathBuf,
    /// Whether it may be a directory that other users can replace.
    pub temp_directory_shared: bool,
    /// Bytes on the spool over all jobs and bodies being served.
    pub max_spool_size: u64,
    /// Program and arguments; the media's path is appended.
    pub removal_command: Option<(PathBuf, Vec<OsString>)>,
    /// By content.
    pub mime: filetype::MimeRules,
    /// Bytes of the script's stdout that are kept.
    pub max_output_size: usize,
    /// Exit codes that are failures rather than verdicts; never contains 0.
    pub failure_exit_codes: Vec<i32>,
    /// What the script is tried with, if it is.
    pub canary: Option<canary::Settings>,
}

impl Settings {
    /// `[rules]`, where they are asked.
    #[must_use]
    pub fn rules(&self) -> Option<&engines::rules::Settings> {
        self.engines.iter().find_map(|kind| match kind {
            engines::Kind::Rules(rules) => Some(rules),
            _ => None,
        })
    }

    /// What one media may take with all engines one after the other.
    #[must_use]
    pub fn time_limits(&self) -> Duration {
        let limit = |kind: &engines::Kind| match kind {
            engines::Kind::Script(_) => self.timeout,
            engines::Kind::Rules(rules) => rules.timeout,
            engines::Kind::Clamd(clamd) => clamd.timeout,
            engines::Kind::Icap(icap) => icap.timeout,
        };
        self.engines.iter().map(limit).fold(Duration::ZERO, Duration::saturating_add)
    }
}

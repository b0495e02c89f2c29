//! Verdict of the engines.

use std::{sync::Arc, time::SystemTime};

use mcs_filetype::MediaType;

/// Verdict on a content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// At least one engine has finished, and nothing that the operator's policies do not allow was found.
    Clean {
        /// When the scan began.
        at: SystemTime,
    },
    /// An engine reported the content as not clean, or the operator's policy refuses what could not be examined.
    NotClean {
        /// Why the content is not clean.
        kind: NotCleanKind,
        /// The finding, for example the script's standard output. Valid UTF-8 without control characters and without
        /// the path of the job's directory, at most `scan.max_output_size` bytes; may be empty.
        output: Arc<str>,
    },
    /// The operator's lists do not allow this type. The engines may not have run.
    TypeForbidden {
        /// The detected type.
        detected: MediaType,
    },
}

/// Why a content is not clean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotCleanKind {
    /// Malware.
    Infected,
    /// A policy of an engine.
    Refused,
    /// Contents that need a password, with `scan.on_encrypted = "refuse"`.
    Encrypted,
    /// A limit inside the file, with `scan.on_limit = "refuse"`.
    Limit,
    /// Contents that an engine could not read, with `unpack.on_unreadable = "refuse"`.
    Unreadable,
    /// Contents that programs unpack differently, with `unpack.on_inconsistent = "refuse"`.
    Inconsistent,
    /// A file too large for an engine, with `on_oversize = "refuse"`.
    TooLarge,
}

impl NotCleanKind {
    /// Returns the name in the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Infected => "infected",
            Self::Refused => "refused",
            Self::Encrypted => "encrypted",
            Self::Limit => "limit",
            Self::Unreadable => "unreadable",
            Self::Inconsistent => "inconsistent",
            Self::TooLarge => "too_large",
        }
    }
}

impl Verdict {
    /// Returns why the content is not clean; `None` for other verdicts.
    #[must_use]
    pub fn not_clean_kind(&self) -> Option<NotCleanKind> {
        match self {
            Self::NotClean { kind, .. } => Some(*kind),
            Self::Clean { .. } | Self::TypeForbidden { .. } => None,
        }
    }

    /// Returns the verdict's name in the log, in metrics and in the audit log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clean { .. } => "clean",
            Self::NotClean { .. } => "not_clean",
            Self::TypeForbidden { .. } => "type_forbidden",
        }
    }
}

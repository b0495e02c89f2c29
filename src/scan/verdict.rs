//! Verdict of the engines.

use std::{sync::Arc, time::SystemTime};

use mcs_filetype::MediaType;

/// Verdict on a content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every engine that was not skipped reported the content clean.
    Clean {
        /// When the scan ended.
        at: SystemTime,
    },
    /// An engine reported the content as not clean.
    NotClean {
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

impl Verdict {
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

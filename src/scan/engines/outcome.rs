//! Outcomes of one engine, the same for all engines.
//!
//! | outcome | the engine | the operator's policy |
//! |---|---|---|
//! | clean | examined the whole file and found nothing | none |
//! | infected | found malware | none: not clean |
//! | refused | does not allow the contents, by a policy of its own | none: not clean |
//! | encrypted | found contents that need a password | `scan.on_encrypted` |
//! | limit | stopped at a limit inside the file | `scan.on_limit` |
//! | too large | did not examine the file because of its size | the engine's `on_oversize` |
//! | failed (an `Err`) | did not finish | the engine's `on_failure` |

/// Maximum length of the first line of an engine's output, bytes.
pub(super) const MAX_FIRST_LINE: usize = 1000;

/// What one engine determined about a file. An engine that failed has none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing found in the whole file.
    Clean,
    /// Malware.
    Infected {
        /// The engine's name for the finding: arbitrary text. Empty only for a script without output.
        name: String,
    },
    /// Contents that a policy of the engine does not allow.
    Refused {
        /// The engine's name for the finding.
        name: String,
    },
    /// Contents that need a password, and nothing found in the rest.
    Encrypted {
        /// The engine's name for the finding.
        name: String,
    },
    /// The engine stopped at a limit inside the file, and found nothing before.
    Limit {
        /// The engine's name for the limit.
        name: String,
    },
    /// The file exceeds the engine's limit for whole files. Nothing was examined.
    TooLarge,
}

impl Outcome {
    /// Returns the outcome's name in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Infected { .. } => "infected",
            Self::Refused { .. } => "refused",
            Self::Encrypted { .. } => "encrypted",
            Self::Limit { .. } => "limit",
            Self::TooLarge => "too_large",
        }
    }

    /// Returns whether the outcome is valid only if the engine received the whole file. Infections and refusals stand,
    /// whatever follows; an engine that examined nothing does not count. The other outcomes rely on the examination of
    /// the rest. The answers of ICAP servers follow the same rule, in `mcs-icap`.
    pub(super) fn needs_whole_file(&self) -> bool {
        match self {
            Self::Clean | Self::Encrypted { .. } | Self::Limit { .. } => true,
            Self::Infected { .. } | Self::Refused { .. } | Self::TooLarge => false,
        }
    }

    /// Returns the engine's name for a finding or a limit.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Clean | Self::TooLarge => None,
            Self::Infected { name }
            | Self::Refused { name }
            | Self::Encrypted { name }
            | Self::Limit { name } => Some(name),
        }
    }

    /// Returns this outcome with `change` applied to the engine's name for it.
    pub(super) fn map_text(mut self, change: impl FnOnce(&str) -> String) -> Self {
        match &mut self {
            Self::Clean | Self::TooLarge => {}
            Self::Infected { name }
            | Self::Refused { name }
            | Self::Encrypted { name }
            | Self::Limit { name } => *name = change(name),
        }
        self
    }
}

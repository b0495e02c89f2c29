//! What the rescan of one media file ends with.

use std::time::Duration;

/// Result of a rescan, for the counts of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum RescanResult {
    Clean,
    NotClean,
    /// The engines give no verdict on the content, or the homeserver does not send it.
    NoVerdict,
    /// The content has a verdict already.
    Known,
    /// The homeserver does not have the media.
    Gone,
    /// The media is not of the homeserver that the token is for.
    Elsewhere,
}

impl RescanResult {
    /// Returns the name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::NotClean => "not_clean",
            Self::NoVerdict => "no_verdict",
            Self::Known => "known",
            Self::Gone => "gone",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// Why no media can be scanned again at present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PauseCause {
    /// The homeserver rejects the token, or its file cannot be used.
    Token,
    /// The homeserver does not respond.
    Homeserver,
    /// The homeserver asks to wait.
    RateLimit,
    /// Clients use the queue or the spool.
    Busy,
    /// An engine gives no verdicts, has no known version, or the canary has not passed.
    Engines,
    /// The store cannot be used.
    Store,
}

impl PauseCause {
    /// Returns the name in metrics and in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Homeserver => "homeserver",
            Self::RateLimit => "rate_limit",
            Self::Busy => "busy",
            Self::Engines => "engines",
            Self::Store => "store",
        }
    }

    /// Returns the pause after this number of pauses in a row.
    pub(super) fn delay(self, pauses: u32) -> Duration {
        let (first, last) = match self {
            Self::Busy => (1, 30),
            Self::Token | Self::Homeserver | Self::RateLimit | Self::Engines | Self::Store => {
                (5, 300)
            }
        };
        let seconds = 2_u64.saturating_pow(pauses).saturating_mul(first);
        Duration::from_secs(seconds.min(last))
    }
}

/// What a try to scan media again ends with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum RescanEnd {
    /// A verdict on the content with this SHA-256.
    Verdict(RescanResult, [u8; 32]),
    /// A result about this media alone: other media with the same content may have another.
    Done(RescanResult),
    /// This media failed, others may not. It is tried again after the others.
    Transient(String),
    /// The engines failed with this media, and then with other content: they are down, or this media stops them.
    EnginesFail(String),
    /// No media can be scanned now. The same one is tried again after a pause.
    Pause {
        cause: PauseCause,
        detail: String,
        /// Delay that the homeserver asks for.
        delay: Option<Duration>,
    },
}

impl RescanEnd {
    pub(super) fn pause(cause: PauseCause, detail: impl Into<String>) -> Self {
        Self::Pause { cause, detail: detail.into(), delay: None }
    }
}

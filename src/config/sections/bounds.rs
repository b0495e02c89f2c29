//! Settings that each engine has: its time limit, its size bound, and the policies for outcomes of this engine.

use std::time::Duration;

use super::prelude::*;

settings! {
    /// Size bound of an engine, and the effects of exceeding it, of failures and of findings.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Bounds {
        /// Maximum size of a file for this engine, bytes; `None` if unlimited.
        pub max_size: Option<u64> = max_size(),
        /// Effect of a file that the engine does not examine because of its size.
        pub on_oversize: OversizePolicy = oversize_policy(),
        /// Effect of a failure of the engine.
        pub on_failure: SkipPolicy = skip_policy(),
        /// Effect of what the engine finds.
        pub on_not_clean: FindingPolicy = finding_policy(),
    }
}

/// `on_oversize`: the effect of a file that one engine does not examine because of its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OversizePolicy {
    /// A final error.
    Fail,
    /// The verdict is "not clean".
    Refuse,
    /// The other engines decide.
    Skip,
}

/// `on_failure`: the effect of an engine that did not finish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SkipPolicy {
    /// The scan fails.
    Fail,
    /// The other engines decide.
    Skip,
}

/// `on_not_clean`: the effect of a file that one engine reports as infected or refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FindingPolicy {
    /// The verdict is "not clean".
    Refuse,
    /// The finding is recorded, and the other engines decide.
    Observe,
}

/// `scan.on_encrypted` and `scan.on_limit`: how contents that no engine could examine affect the verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentPolicy {
    /// The verdict is "not clean".
    Refuse,
    /// A final error.
    Fail,
    /// The engine counts as finished, and the rest of the file decides.
    Pass,
}

/// `timeout` of an engine.
pub(super) fn timeout() -> Key<Duration> {
    duration(MILLISECOND..=MAX_DURATION)
}

pub(super) fn max_size() -> Key<Option<u64>> {
    optional(size(1..=PEBIBYTE))
}

pub(super) fn oversize_policy() -> Key<OversizePolicy> {
    use OversizePolicy::{Fail, Refuse, Skip};
    choice([("fail", Fail), ("refuse", Refuse), ("skip", Skip)])
}

pub(super) fn skip_policy() -> Key<SkipPolicy> {
    choice([("fail", SkipPolicy::Fail), ("skip", SkipPolicy::Skip)])
}

pub(super) fn finding_policy() -> Key<FindingPolicy> {
    choice([("refuse", FindingPolicy::Refuse), ("observe", FindingPolicy::Observe)])
}

pub(super) fn content_policy() -> Key<ContentPolicy> {
    use ContentPolicy::{Fail, Pass, Refuse};
    choice([("refuse", Refuse), ("fail", Fail), ("pass", Pass)])
}

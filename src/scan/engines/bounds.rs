//! Settings that each engine has: its size bound, and the policies for outcomes of this engine.

/// Size bound of an engine, and the effects of exceeding it and of failures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Maximum size of a file for this engine, bytes; none without a bound.
    pub max_size: Option<u64>,
    /// Effect of a file that the engine does not examine because of its size.
    pub on_oversize: OversizePolicy,
    /// Effect of a failure of the engine.
    pub on_failure: SkipPolicy,
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

/// `scan.on_encrypted` and `scan.on_limit`: the effect of contents that no engine could examine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentPolicy {
    /// The verdict is "not clean".
    Refuse,
    /// A final error.
    Fail,
    /// The engine counts as finished, and the rest of the file decides.
    Pass,
}

impl Bounds {
    /// Returns the part that determines what is examined, without the policies.
    pub(super) fn without_policies(&self) -> Self {
        Self {
            max_size: self.max_size,
            on_oversize: OversizePolicy::Fail,
            on_failure: SkipPolicy::Fail,
        }
    }
}

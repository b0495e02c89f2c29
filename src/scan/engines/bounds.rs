//! Size bounds of engines, and policies for missing verdicts.

/// Size bound of an engine, and the effects of exceeding it and of failures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Maximum size of a file for this engine, bytes; none without a bound.
    pub max_size: Option<u64>,
    /// Effect of a file larger than `max_size`.
    pub on_oversize: SkipPolicy,
    /// Effect of a failure of the engine.
    pub on_failure: SkipPolicy,
}

/// Effect on the scan when one engine gives no verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SkipPolicy {
    /// The scan fails.
    Fail,
    /// The other engines decide.
    Skip,
}

//! Parts of the engines' tests.

use super::bounds::{Bounds, FindingPolicy, OversizePolicy, SkipPolicy};

/// Bounds without effect.
pub(super) const BOUNDS: Bounds = Bounds {
    max_size: None,
    on_oversize: OversizePolicy::Fail,
    on_failure: SkipPolicy::Fail,
    on_not_clean: FindingPolicy::Refuse,
};

//! Settings that each engine has: its size bound, and the policies for outcomes of this engine.

pub use crate::config::sections::bounds::{Bounds, ContentPolicy, OversizePolicy, SkipPolicy};

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

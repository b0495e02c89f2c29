//! Settings that each engine has: its size bound, and the policies for outcomes of this engine.

pub use crate::config::sections::bounds::{
    Bounds, ContentPolicy, FindingPolicy, OversizePolicy, SkipPolicy,
};

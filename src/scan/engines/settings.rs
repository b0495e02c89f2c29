//! Settings of the engines.

use super::{bounds::Bounds, clamd, icap, rules};

/// The settings of one engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EngineSettings {
    /// The script; its other settings are in `[scan]`.
    Script(Bounds),
    /// `[rules]`
    Rules(rules::Settings),
    /// `[clamd]`
    Clamd(clamd::Settings),
    /// `[icap]`
    Icap(icap::Settings),
}

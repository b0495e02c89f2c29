//! Settings of the engines.

pub use crate::config::sections::engines::EngineSettings;

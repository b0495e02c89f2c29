//! Limits of unpacking.

use serde::{Deserialize, Serialize};

/// Whether media are unpacked, and the limits for one media file. The configuration's section `[unpack]` describes them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpackSettings {
    /// Whether contents are evaluated at all.
    pub enabled: bool,
    /// Maximum size of all unpacked objects together, bytes.
    pub max_total: u64,
    /// Maximum size of one unpacked object, bytes. The objects in memory at the same time are at most twice as large.
    pub max_file: u64,
    /// Maximum number of unpacked objects.
    pub max_files: u64,
    /// Maximum number of containers around an object. A compressed stream and the tar archive in it count as one.
    pub max_depth: u32,
}

impl Default for UnpackSettings {
    /// Returns the values of `config/default.toml`.
    fn default() -> Self {
        Self {
            enabled: true,
            max_total: 256 << 20,
            max_file: 64 << 20,
            max_files: 10_000,
            max_depth: 12,
        }
    }
}

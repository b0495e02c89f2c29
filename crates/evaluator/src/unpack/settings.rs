//! Limits of unpacking.

/// Whether media are unpacked, and the limits for one media file. The configuration's section `[unpack]` describes them.
#[derive(Clone, PartialEq, Eq, Debug)]
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

impl UnpackSettings {
    /// Returns the settings as the argument of a process.
    pub(crate) fn to_argument(&self) -> String {
        let Self { enabled, max_total, max_file, max_files, max_depth } = self;
        format!("{enabled},{max_total},{max_file},{max_files},{max_depth}")
    }

    /// Parses the argument; `None` if it is invalid.
    pub(crate) fn from_argument(argument: &str) -> Option<Self> {
        let values: Vec<_> = argument.split(',').collect();
        let [enabled, max_total, max_file, max_files, max_depth] = values.as_slice() else {
            return None;
        };
        Some(Self {
            enabled: enabled.parse().ok()?,
            max_total: max_total.parse().ok()?,
            max_file: max_file.parse().ok()?,
            max_files: max_files.parse().ok()?,
            max_depth: max_depth.parse().ok()?,
        })
    }
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

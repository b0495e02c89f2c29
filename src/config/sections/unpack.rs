//! `[unpack]`.

use mcs_evaluator::UnpackSettings;

use super::{
    bounds::{ContentPolicy, content_policy},
    prelude::*,
};

/// Minimum of the sizes, bytes. Below it, hardly any archive could be examined.
const KIBIBYTE: u64 = 1 << 10;

/// Which of `scan.allowed_mimetypes` and `scan.blocked_mimetypes` apply to contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InnerLists {
    /// None.
    No,
    /// `blocked_mimetypes`.
    Blocked,
    /// The one that is set.
    Both,
}

settings! {
    /// `[unpack]`, validated.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Settings {
        /// Whether contents are evaluated, and the limits for one media file.
        pub limits: UnpackSettings = group(),
        /// Effect of contents that cannot be read.
        pub on_unreadable: ContentPolicy = content_policy(),
        /// Effect of contents that programs unpack differently.
        pub on_inconsistent: ContentPolicy = content_policy(),
        /// Which lists of types apply to contents.
        pub mime_types: InnerLists = inner_lists(),
        /// Whether clients receive the location of a finding inside the file.
        pub report_paths: bool = boolean(),
    }
}

/// `None` if no engine unpacks files.
impl KeyGroup for Option<Settings> {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        Settings::read(section).map(Some)
    }

    fn write(&self, lines: &mut Lines) {
        if let Some(settings) = self {
            settings.write(lines);
        }
    }
}

keys! {
    UnpackSettings {
        enabled = boolean(),
        max_total = size(KIBIBYTE..=PEBIBYTE),
        max_file = size(KIBIBYTE..=PEBIBYTE),
        // The evaluator keeps a digest of each file in memory.
        max_files = integer(1..=1_000_000),
        // Each level takes a part of the evaluator's stack.
        max_depth = integer(1..=64),
    }
    check check
}

fn check(limits: UnpackSettings, section: &mut Section<'_, '_>) -> UnpackSettings {
    if limits.max_file > limits.max_total {
        section.warn(Warning::NeverReached { key: "unpack.max_file", because: "unpack.max_total" });
    }
    limits
}

fn inner_lists() -> Key<InnerLists> {
    choice([("no", InnerLists::No), ("blocked", InnerLists::Blocked), ("both", InnerLists::Both)])
}

//! `[result_cache]`.

use std::time::Duration;

use super::prelude::*;

settings! {
    /// `[result_cache]`, checked.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Settings {
        /// Maximum number of verdicts, and of media entries.
        pub max_size: usize = restart(integer(1..=100_000_000)),
        /// Time to live of an entry.
        pub ttl: Duration = duration(Duration::ZERO..=MAX_DURATION),
        /// Maximum size of a body kept in memory, bytes; 0 keeps none.
        pub max_file_size: u64 = restart(size(0..=1 << 40)),
        /// Maximum total size of the bodies kept in memory, bytes.
        pub max_total_size: u64 = restart(size(0..=1 << 40)),
        /// Verdicts from these exit codes of the script are not cached. May contain 0.
        pub exit_codes_to_ignore: Vec<i32> = list(integer(0..=255)),
        /// Time to live of a failure.
        pub failure_ttl: Duration = duration(Duration::ZERO..=MAX_DURATION),
    }
    check check
}

fn check(settings: Settings, cache: &mut Section<'_, '_>) -> Settings {
    if settings.max_file_size > settings.max_total_size {
        cache.warn(Warning::NeverReached {
            key: "result_cache.max_file_size",
            because: "result_cache.max_total_size",
        });
    }
    settings
}

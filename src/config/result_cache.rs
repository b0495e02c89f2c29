//! `[result_cache]`.

use std::time::Duration;

use super::{
    problem::Warning,
    reader::Reader,
    types::{self, MAX_DURATION, duration, integer, size},
};
use crate::scan::cache::Settings;

pub(super) fn read(reader: &mut Reader<'_>) -> Settings {
    let mut cache = reader.section("result_cache");
    let max_file_size = cache.read("max_file_size", size(0..=1 << 40)).unwrap_or(1 << 20);
    let max_total_size = cache.read("max_total_size", size(0..=1 << 40)).unwrap_or(64 << 20);
    if max_file_size > max_total_size {
        cache.warn(Warning::NeverReached {
            key: "result_cache.max_file_size",
            because: "result_cache.max_total_size",
        });
    }
    Settings {
        max_size: cache.read("max_size", integer(1..=100_000_000)).unwrap_or(100_000),
        ttl: cache
            .read("ttl", duration(Duration::ZERO..=MAX_DURATION))
            .unwrap_or(Duration::from_secs(24 * 60 * 60)),
        max_file_size,
        max_total_size,
        exit_codes_to_ignore: cache
            .read("exit_codes_to_ignore", types::list(integer(0..=255)))
            .unwrap_or_default(),
        failure_ttl: cache
            .read("failure_ttl", duration(Duration::ZERO..=MAX_DURATION))
            .unwrap_or(Duration::from_secs(5)),
    }
}

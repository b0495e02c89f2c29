//! Compares the table of memory bounds in docs/sizing.md with the constants and the defaults.

use crate::{
    http::{connection::MAX_BUFFER, connection_table},
    media::{MAX_HEADER_VALUE, authorise, discovery},
    scan::cache::ENTRY_WEIGHT,
    tenancy,
};

const PAGE: &str = include_str!("../docs/sizing.md");
const DEFAULTS: &str = include_str!("../config/default.toml");

/// Returns an integer of the default configuration.
fn default(key: &str) -> usize {
    let prefix = format!("{key} = ");
    let value = DEFAULTS.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
    value.parse().unwrap()
}

/// Bytes of a row: number of entries times bytes of an entry.
fn rows() -> Vec<(&'static str, usize)> {
    let entries = DEFAULTS.split_once("[result_cache]").unwrap().1;
    let max_size = entries.lines().find_map(|line| line.strip_prefix("max_size = ")).unwrap();
    let cached = max_size.parse::<usize>().unwrap() * usize::try_from(ENTRY_WEIGHT).unwrap();
    let (queue, workers) = (default("queue_capacity"), default("workers"));
    let connections = default("max_connections");
    vec![
        ("media entries", cached),
        ("verdicts and failures", cached),
        ("grants", authorise::CAPACITY * 128),
        ("discovered base URLs", discovery::CAPACITY * discovery::ENTRY_BYTES),
        ("queue and scans in progress", (queue + workers) * MAX_BUFFER),
        ("single flights", connections * 1024),
        ("accepted tokens", tenancy::MAX_ACCEPTED * tenancy::TOKEN_BYTES),
        // A scan or an authorisation, and its name lookup: each has a tenant and a group.
        ("tenants", 4 * (queue + workers + connections) * tenancy::COUNTS_BYTES),
        ("waiters for a slot", (workers + connections) * tenancy::SLOT_WAITER_BYTES),
        ("connection table", connections * connection_table::ENTRY_BYTES),
    ]
}

#[test]
fn sizing_page_states_the_bound_of_each_table() {
    let mut total = 0;
    for (name, bytes) in rows() {
        total += bytes;
        let mebibytes = bytes.div_ceil(1 << 20);
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| {name} |")));
        let row = row.unwrap_or_else(|| panic!("docs/sizing.md has no row {name}"));
        assert!(row.ends_with(&format!("| {mebibytes} MiB |")), "{row}: {mebibytes} MiB");
    }
    let total = total.div_ceil(1 << 20);
    assert!(PAGE.contains(&format!("together at most {total} MiB")), "{total}");
    // The base of the formula: the idle service and all tables.
    assert!(total + 23 <= 256, "{total}");
    let buffers = (default("max_connections") * 2 * MAX_BUFFER) >> 20;
    assert!(PAGE.contains(&format!("2048 connections take {buffers} MiB")), "{buffers}");
    assert!(PAGE.contains(&format!("value has at most {MAX_HEADER_VALUE} bytes")));
}

#[test]
fn entry_of_a_discovered_url_fits_into_its_bound() {
    // The server's name, the URL and the table's slots.
    let longest = 255 + discovery::MAX_BASE_URL + size_of::<reqwest::Url>() + 256;
    assert!(longest <= discovery::ENTRY_BYTES, "{longest}");
}

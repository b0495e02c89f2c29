//! Metrics of the verdict store.

use std::fmt;

use mcs_store::{SharedCounters, StoreCounters};

use super::page::Page;
use crate::scan::cache::VerdictRecords;

/// Encodes the metrics of the verdict store. `None`: the configured store cannot be used.
pub(super) fn store(page: &mut Page<'_>, records: Option<&VerdictRecords>) -> fmt::Result {
    let is_up = records.is_some_and(VerdictRecords::is_in_use);
    page.gauge("mcs_store_up", "Whether the store is read and written", u64::from(is_up))?;
    let Some(records) = records else { return Ok(()) };
    if let Some(counters) = records.file_counters() {
        file(page, counters)?;
    }
    if let Some(number) = records.replica_keys() {
        let help =
            "Different request keys of the replicas that share the store; more than 1 is a mistake";
        page.gauge("mcs_replica_keys", help, number)?;
    }
    if let Some(seconds) = records.clock_difference() {
        let help =
            "Difference between the clocks of this machine and of the shared store, without sign";
        page.gauge("mcs_store_clock_difference_seconds", help, seconds)?;
    }
    match records.shared_store() {
        Some(store) => shared(page, store.counters()),
        None => Ok(()),
    }
}

fn file(page: &mut Page<'_>, counters: StoreCounters) -> fmt::Result {
    let StoreCounters { hits, misses, bad_records, failed_reads, entries, .. } = counters;
    let StoreCounters { evicted, failed_writes, dropped_writes, replacements, .. } = counters;
    page.gauge("mcs_store_records", "Records in the store, including expired ones", entries)?;
    lookups(page, hits, misses)?;
    write_failures(page, &[("failed", failed_writes), ("dropped", dropped_writes)])?;
    bad(page, bad_records)?;
    for (name, help, number) in [
        ("mcs_store_failed_reads", "Lookups that failed because of the disk", failed_reads),
        ("mcs_store_evicted_records", "Records removed as expired or to make room", evicted),
        (
            "mcs_store_replacements",
            "Replacements of a store that was damaged while in use",
            replacements,
        ),
    ] {
        page.counters(name, help, [([], number)])?;
    }
    Ok(())
}

fn shared(page: &mut Page<'_>, counters: SharedCounters) -> fmt::Result {
    let SharedCounters { hits, misses, bad_records, failed_commands, dropped_writes, .. } =
        counters;
    lookups(page, hits, misses)?;
    write_failures(page, &[("dropped", dropped_writes)])?;
    bad(page, bad_records)?;
    let help = "Changes that wait until the shared store can be written";
    page.gauge("mcs_store_pending_writes", help, counters.pending_writes)?;
    for (name, help, number) in [
        ("mcs_store_calls", "Calls of the shared store", counters.store_calls),
        ("mcs_store_failed_calls", "Calls of the shared store that failed", failed_commands),
        (
            "mcs_store_breaker_openings",
            "How often the shared store was not used for some time after failures",
            counters.breaker_openings,
        ),
    ] {
        page.counters(name, help, [([], number)])?;
    }
    Ok(())
}

fn lookups(page: &mut Page<'_>, hits: u64, misses: u64) -> fmt::Result {
    let lookups = [("hit", hits), ("miss", misses)];
    let lookups = lookups.map(|(result, number)| ([("result", result)], number));
    page.counters("mcs_store_lookups", "Lookups in the store by result", lookups)
}

fn write_failures(page: &mut Page<'_>, lost: &[(&'static str, u64)]) -> fmt::Result {
    let help = "Changes dropped from the queue, and failed attempts to write a change";
    let lost = lost.iter().map(|(result, number)| ([("result", *result)], *number));
    page.counters("mcs_store_write_failures", help, lost)
}

fn bad(page: &mut Page<'_>, number: u64) -> fmt::Result {
    let help = "Altered records that were found and not used";
    page.counters("mcs_store_bad_records", help, [([], number)])
}

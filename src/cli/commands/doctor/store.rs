//! Examination of the verdict store.

use std::time::Duration;

use mcs_store::StoreInspection;

use crate::{
    app::{self, SharedStoreState},
    chain::Chain,
    cli::health_report::HealthReport,
    config::{Config, sections::store::FileStoreSettings},
    keys::RequestKey,
};

/// Time limit of the check of a file's structure.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn examine_store(
    report: &mut HealthReport,
    config: &Config,
    key: Option<&RequestKey>,
) {
    let Some(settings) = &config.store else {
        return report.ok("store", "none is configured");
    };
    let check = match app::check_store(settings, key).await {
        Ok(check) => check,
        Err(error) => return report.fail("store", Chain(&error)),
    };
    for notice in &check.notices {
        report.warn("store", notice);
    }
    match (check.shared, settings.file()) {
        (Some(SharedStoreState::Unreachable(reason)), _) => report.warn(
            "store",
            format_args!(
                "the shared store cannot be used ({reason}); each replica scans for itself"
            ),
        ),
        (Some(SharedStoreState::Reachable { replica_keys, clock_difference }), _) => {
            examine_shared_store(report, replica_keys, clock_difference);
        }
        (None, Some(file)) => examine_file(report, file).await,
        (None, None) => {}
    }
}

async fn examine_file(report: &mut HealthReport, settings: &FileStoreSettings) {
    let path = settings.path.display();
    match app::inspect_store(settings, CHECK_LIMIT).await {
        Ok(StoreInspection::Missing) => {
            report.warn("store", format_args!("{path} does not exist; the start creates it"));
        }
        Ok(StoreInspection::Unusable(cause)) => report.warn(
            "store",
            format_args!(
                "{path}: {cause}; the next start sets it aside and begins with an empty store"
            ),
        ),
        Ok(StoreInspection::Good { entries, size, is_open, is_checked }) => {
            let state = if is_open { ", and is in use or was not closed" } else { "" };
            let text =
                format!("{path} has {entries} records in {} KiB{state}", size.div_ceil(1024));
            if is_checked {
                report.ok("store", text);
            } else {
                let limit = CHECK_LIMIT.as_secs();
                report.warn(
                    "store",
                    format_args!("{text}; its structure could not be checked within {limit} s"),
                );
            }
        }
        Err(error) if settings.is_required => report.fail("store", Chain(&error)),
        Err(error) => report.warn(
            "store",
            format_args!("{}; without it, the service keeps no verdicts", Chain(&error)),
        ),
    }
}

fn examine_shared_store(
    report: &mut HealthReport,
    replica_keys: usize,
    clock_difference: Option<u64>,
) {
    if replica_keys == 1 {
        report.ok("store", "the shared store is reachable, and the replicas have one key");
    } else {
        report.fail(
            "store",
            format_args!(
                "replicas have {replica_keys} different request keys; copy one key to all"
            ),
        );
    }
    if let Some(seconds) = clock_difference {
        report.warn(
            "clock",
            format_args!(
                "it differs from the clock of the shared store by {seconds} s; synchronise both"
            ),
        );
    }
}

//! Log of facts about the configuration and the machine that operators need to know.

use mcs_filetype::can_detect;
use mcs_sandbox::{EffectiveLimits, Mode, Sandbox};
use tracing::{info, warn};

use crate::{config::Config, keys::KeyNotice};

/// Returns the names in the MIME lists of `[scan]` that no file has.
#[must_use]
pub fn unknown_types(config: &Config) -> Vec<String> {
    let names = config.scan.mime.names();
    let mut unknown: Vec<_> = names.filter(|name| !can_detect(name)).map(str::to_owned).collect();
    unknown.sort_unstable();
    unknown
}

pub(super) fn log_key_notice(notice: &KeyNotice) {
    match notice {
        KeyNotice::Generated { path } => {
            warn!(path = %path.display(), "generated a new request key, clients have to fetch it");
        }
        notice @ KeyNotice::ReadableByOthers { .. } => warn!("{notice}"),
    }
}

/// Logs the names that [`unknown_types`] returns.
pub(super) fn log_unknown_types(config: &Config) {
    for name in unknown_types(config) {
        warn!(name, "MIME type in [scan] is never detected");
    }
}

pub(super) fn log_sandbox(sandbox: &Sandbox, mode: &Mode) {
    let (layers, helper) = (sandbox.layers(), sandbox.helper().display());
    info!(%layers, %helper, "the sandbox is active");
    let EffectiveLimits { limits, notes, .. } = sandbox.limits();
    let (processes, open_files) = (limits.processes, limits.open_files);
    info!(processes, open_files, "limits of each job");
    for note in notes {
        warn!("{note}");
    }
    if *mode == Mode::Degraded {
        warn!("sandbox.mode is degraded: missing sandbox layers are ignored");
    }
}

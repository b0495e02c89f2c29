//! Log of facts about the configuration and the machine that operators need to know.

use mcs_filetype::can_detect;
use mcs_sandbox::{EffectiveLimits, Sandbox};
use tracing::{info, warn};

use crate::{config::Config, keys::KeyNotice, scan::engines::EngineSettings};

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

/// Returns the engines and rules whose findings do not refuse media.
#[must_use]
pub fn observed(config: &Config) -> Vec<String> {
    let engines = config.scan.engines.iter().filter_map(EngineSettings::observed_name);
    let rules = config.scan.rules().map(|rules| rules.observe.as_slice()).unwrap_or_default();
    let rules = rules.iter().map(|rule| format!("rule {rule}"));
    engines.map(|name| format!("engine {name}")).chain(rules).collect()
}

/// Logs what [`unknown_types`] and [`observed`] return.
pub(super) fn log_configuration(config: &Config) {
    for name in unknown_types(config) {
        warn!(name, "MIME type in [scan] is never detected");
    }
    let observed = observed(config);
    if !observed.is_empty() {
        let names = observed.join(", ");
        warn!(names, "findings of observed engines and rules do not refuse media");
    }
}

pub(super) fn log_sandbox(sandbox: &Sandbox) {
    let (layers, helper) = (sandbox.layers(), sandbox.helper().display());
    info!(%layers, %helper, "the sandbox is active");
    let EffectiveLimits { limits, notes, .. } = sandbox.limits();
    let (processes, open_files) = (limits.processes, limits.open_files);
    info!(processes, open_files, "limits of each job");
    for note in notes {
        warn!("{note}");
    }
}

//! `[incident]`.

use std::{path::PathBuf, time::Duration};

use super::prelude::*;

/// Maximum number of media that are scanned again a second.
const MAX_RATE: u32 = 100;

/// Maximum time that the engines must not have changed.
const MAX_DELAY: Duration = Duration::from_secs(24 * 3600);

/// Settings of all incidents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How long the names of media are kept by content, and how long an incident is not created again.
    pub keep: Duration,
    /// Scans served media again after a change of the engines; `None` if off.
    pub rescan: Option<RescanSettings>,
}

/// How media that was served is scanned again after a change of the engines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RescanSettings {
    /// Maximum number of media a second.
    pub rate: u32,
    /// Time without a further change of the engines.
    pub delay: Duration,
    /// File with the token that downloads media.
    pub token_path: PathBuf,
}

impl KeyGroup for Settings {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let keep = keep().read(section, "keep");
        let is_on = rescan().read(section, "rescan");
        let rate = rate().read(section, "rate");
        let delay = delay().read(section, "rescan_delay");
        let token_path = token_path().read(section, "token_path");
        if !is_on? {
            section.warn_unused(|key| key != "keep", "incident.rescan is \"off\"");
            return Some(Self { keep: keep?, rescan: None });
        }
        if token_path == Some(None) {
            section.missing(
                "token_path",
                "the path of a file with the access token of a user of the homeserver, \
                 since incident.rescan is \"recent\"",
            );
        }
        let rescan = RescanSettings { rate: rate?, delay: delay?, token_path: token_path?? };
        Some(Self { keep: keep?, rescan: Some(rescan) })
    }

    fn write(&self, lines: &mut Lines) {
        keep().write(&self.keep, "keep", lines);
        rescan().write(&self.rescan.is_some(), "rescan", lines);
        if let Some(settings) = &self.rescan {
            rate().write(&settings.rate, "rate", lines);
            delay().write(&settings.delay, "rescan_delay", lines);
            token_path().write(&Some(settings.token_path.clone()), "token_path", lines);
        }
    }
}

fn keep() -> Key<Duration> {
    duration(SECOND..=MAX_DURATION)
}

fn rescan() -> Key<bool> {
    choice([("off", false), ("recent", true)])
}

fn rate() -> Key<u32> {
    integer(1..=MAX_RATE)
}

fn delay() -> Key<Duration> {
    duration(SECOND..=MAX_DELAY)
}

fn token_path() -> Key<Option<PathBuf>> {
    optional(paths::key(paths::path))
}

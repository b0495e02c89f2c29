//! `scan.canary` and `scan.canary_interval`.

use std::{path::PathBuf, time::Duration};

use toml::de::DeValue;

use super::prelude::*;

/// `scan.canary`, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CanarySettings {
    /// The samples.
    pub samples: CanarySamples,
    /// Interval after a right result.
    pub interval: Duration,
}

/// A sample that every engine must report as not clean, and one that it must report as clean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CanarySamples {
    /// The EICAR test file, and a line of text.
    Eicar,
    /// The operator's own files, read for each run.
    Files { infected: PathBuf, clean: PathBuf },
}

/// `None` if the canary is off.
impl KeyGroup for Option<CanarySettings> {
    fn read(scan: &mut Section<'_, '_>) -> Option<Self> {
        let samples = samples().read(scan, "canary");
        let interval = interval().read(scan, "canary_interval")?;
        Some(samples?.map(|samples| CanarySettings { samples, interval }))
    }

    fn write(&self, lines: &mut Lines) {
        samples().write(&self.as_ref().map(|canary| canary.samples.clone()), "canary", lines);
        if let Some(canary) = self {
            interval().write(&canary.interval, "canary_interval", lines);
        }
    }
}

fn interval() -> Key<Duration> {
    duration(SECOND..=MAX_DURATION)
}

/// `scan.canary`; `None` means off.
fn samples() -> Key<Option<CanarySamples>> {
    Key::new(parse_samples, |samples| match samples {
        None => format::quoted("off"),
        Some(CanarySamples::Eicar) => format::quoted("eicar"),
        Some(CanarySamples::Files { infected, clean }) => {
            let files = [("infected", format::path(infected)), ("clean", format::path(clean))];
            format::table(files.into_iter())
        }
    })
}

fn parse_samples(value: RawValue<'_>) -> ParseResult<Option<CanarySamples>> {
    const EXPECTED: &str = "\"eicar\", \"off\" or { infected = \"PATH\", clean = \"PATH\" }";
    match value.text() {
        Some("eicar") => return Ok(Some(CanarySamples::Eicar)),
        Some("off") => return Ok(None),
        _ => {}
    }
    let DeValue::Table(_) = value.toml else { return value.invalid(EXPECTED) };
    let files = parse_table(value, |name, value| Ok((name.to_owned(), paths::file(value)?)))?;
    let file = |wanted| files.iter().find(|(name, _)| name == wanted).map(|(_, path)| path.clone());
    match (file("infected"), file("clean"), files.len()) {
        (Some(infected), Some(clean), 2) => Ok(Some(CanarySamples::Files { infected, clean })),
        _ => value.invalid(EXPECTED),
    }
}

//! `scan.engines`, and the settings of the engines that it lists.

use super::{
    bounds::{Bounds, FindingPolicy, finding_policy, max_size, oversize_policy, skip_policy},
    clamd, hashes, icap,
    prelude::*,
    rules,
};

const SCRIPT_MAX_SIZE: &str = "script_max_size";
const SCRIPT_ON_OVERSIZE: &str = "script_on_oversize";
const SCRIPT_ON_FAILURE: &str = "script_on_failure";
const SCRIPT_ON_NOT_CLEAN: &str = "script_on_not_clean";

/// The engines and their names. All but the script have a section of this name.
const ENGINES: [(EngineName, &str); 5] = [
    (EngineName::Script, "script"),
    (EngineName::Rules, "rules"),
    (EngineName::Hashes, "hashes"),
    (EngineName::Clamd, "clamd"),
    (EngineName::Icap, "icap"),
];

/// The settings of one engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EngineSettings {
    /// The script; its other settings are in `[scan]`.
    Script(Bounds),
    /// `[rules]`
    Rules(rules::Settings),
    /// `[hashes]`
    Hashes(hashes::Settings),
    /// `[clamd]`
    Clamd(clamd::Settings),
    /// `[icap]`
    Icap(icap::Settings),
}

/// The names in `scan.engines`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EngineName {
    Script,
    Rules,
    Hashes,
    Clamd,
    Icap,
}

impl EngineSettings {
    /// Returns the size bound, and the effects of failures and findings.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        match self {
            Self::Script(bounds) => bounds,
            Self::Rules(rules) => &rules.bounds,
            Self::Hashes(hashes) => hashes.bounds(),
            Self::Clamd(clamd) => &clamd.bounds,
            Self::Icap(icap) => &icap.bounds,
        }
    }

    /// Returns whether the engine examines what is inside a file as `[unpack]` says.
    pub(super) fn unpacks(&self) -> bool {
        matches!(self, Self::Rules(_) | Self::Hashes(_))
    }

    /// Returns whether nothing that the engine finds refuses a file.
    fn is_observed(&self) -> bool {
        match self {
            Self::Rules(rules) => rules.observes_all(),
            engine => engine.bounds().on_not_clean == FindingPolicy::Observe,
        }
    }

    /// Returns the name in `scan.engines` if `on_not_clean` is "observe".
    #[must_use]
    pub fn observed_name(&self) -> Option<&'static str> {
        let name = match self {
            Self::Script(_) => "script",
            Self::Rules(_) => "rules",
            Self::Hashes(_) => "hashes",
            Self::Clamd(_) => "clamd",
            Self::Icap(_) => "icap",
        };
        (self.bounds().on_not_clean == FindingPolicy::Observe).then_some(name)
    }

    /// Returns the section and the key for the effect of findings.
    fn finding_key(&self) -> (&'static str, &'static str) {
        const KEY: &str = "on_not_clean";
        match self {
            Self::Script(_) => ("scan", SCRIPT_ON_NOT_CLEAN),
            Self::Rules(rules) if rules.bounds.on_not_clean == FindingPolicy::Refuse => {
                ("rules", "observe")
            }
            Self::Rules(_) => ("rules", KEY),
            Self::Hashes(_) => ("hashes", KEY),
            Self::Clamd(_) => ("clamd", KEY),
            Self::Icap(_) => ("icap", KEY),
        }
    }

    fn name(&self) -> EngineName {
        match self {
            Self::Script(_) => EngineName::Script,
            Self::Rules(_) => EngineName::Rules,
            Self::Hashes(_) => EngineName::Hashes,
            Self::Clamd(_) => EngineName::Clamd,
            Self::Icap(_) => EngineName::Icap,
        }
    }
}

/// `scan.engines`, the script's bounds in `[scan]`, and the sections of the other engines.
impl KeyGroup for Vec<EngineSettings> {
    fn read(scan: &mut Section<'_, '_>) -> Option<Self> {
        let names = names().read(scan, "engines").unwrap_or_else(|| {
            vec![if scan.has("script") { EngineName::Script } else { EngineName::Rules }]
        });
        let script = script_bounds(scan);
        warn_unused_engines(scan, &names);
        let rules = rules::Settings::read(&mut scan.within("rules"));
        let hashes = hashes::Settings::read(&mut scan.within("hashes"));
        let clamd = clamd::Settings::read(&mut scan.within("clamd"));
        let icap = icap::Settings::read(&mut scan.within("icap"));
        for (name, section, key, expected) in [
            (EngineName::Script, "scan", "script", "the path of an executable file"),
            (
                EngineName::Rules,
                "rules",
                "paths",
                "files or directories of YARA rules, unless scan.script is set or scan.engines lists \
                 others",
            ),
            (
                EngineName::Icap,
                "icap",
                "urls",
                "a list of URLs like \"icap://127.0.0.1:1344/avscan\"",
            ),
        ] {
            let mut section = scan.within(section);
            if names.contains(&name) && !section.has(key) {
                section.missing(key, expected);
            }
        }
        if names.contains(&EngineName::Hashes)
            && hashes.as_ref().is_some_and(hashes::Settings::is_empty)
        {
            scan.within("hashes").missing("block", "a list in hashes.block or hashes.allow");
        }
        let settings = |name: &EngineName| match name {
            EngineName::Script => script.clone().map(EngineSettings::Script),
            EngineName::Rules => rules.clone().map(EngineSettings::Rules),
            EngineName::Hashes => hashes.clone().map(EngineSettings::Hashes),
            EngineName::Clamd => clamd.clone().map(EngineSettings::Clamd),
            EngineName::Icap => icap.clone().map(EngineSettings::Icap),
        };
        let engines: Vec<_> = names.iter().map(settings).collect::<Option<_>>()?;
        require_decisive_engine(&engines, scan);
        Some(engines)
    }

    fn write(&self, lines: &mut Lines) {
        names().write(&self.iter().map(EngineSettings::name).collect(), "engines", lines);
        for engine in self {
            match engine {
                EngineSettings::Script(bounds) => {
                    max_size().write(&bounds.max_size, SCRIPT_MAX_SIZE, lines);
                    oversize_policy().write(&bounds.on_oversize, SCRIPT_ON_OVERSIZE, lines);
                    skip_policy().write(&bounds.on_failure, SCRIPT_ON_FAILURE, lines);
                    finding_policy().write(&bounds.on_not_clean, SCRIPT_ON_NOT_CLEAN, lines);
                }
                EngineSettings::Rules(rules) => lines.within("rules", |lines| rules.write(lines)),
                EngineSettings::Hashes(hashes) => {
                    lines.within("hashes", |lines| hashes.write(lines));
                }
                EngineSettings::Clamd(clamd) => lines.within("clamd", |lines| clamd.write(lines)),
                EngineSettings::Icap(icap) => lines.within("icap", |lines| icap.write(lines)),
            }
        }
    }
}

/// Warns of the settings of engines that are not listed.
fn warn_unused_engines(scan: &mut Section<'_, '_>, names: &[EngineName]) {
    for (engine, name) in ENGINES.iter().filter(|(engine, _)| !names.contains(engine)) {
        let since = format!("scan.engines does not list \"{name}\"");
        if *engine == EngineName::Script {
            scan.warn_unused(|key| key == "script" || key.starts_with("script_"), &since);
        } else {
            scan.within(name).warn_unused(|_| true, &since);
        }
    }
}

fn script_bounds(scan: &mut Section<'_, '_>) -> Option<Bounds> {
    let max_size = max_size().read(scan, SCRIPT_MAX_SIZE);
    let on_oversize = oversize_policy().read(scan, SCRIPT_ON_OVERSIZE);
    let on_failure = skip_policy().read(scan, SCRIPT_ON_FAILURE);
    let on_not_clean = finding_policy().read(scan, SCRIPT_ON_NOT_CLEAN);
    Some(Bounds {
        max_size: max_size?,
        on_oversize: on_oversize?,
        on_failure: on_failure?,
        on_not_clean: on_not_clean?,
    })
}

/// Records a problem if no engine can refuse a file.
fn require_decisive_engine(engines: &[EngineSettings], scan: &mut Section<'_, '_>) {
    let mut decisive = engines.iter().filter(|engine| !engine.is_observed());
    match (decisive.next(), decisive.next()) {
        (None, _) => {
            let Some((section, key)) = engines.first().map(EngineSettings::finding_key) else {
                return;
            };
            let expected = match key {
                "observe" => "a shorter list, or another engine in scan.engines",
                _ => "\"refuse\" for at least one",
            };
            scan.within(section).conflict(
                key,
                format!(
                    "found only observed engines in scan.engines, expected {expected}: all files would \
                     be clean"
                ),
            );
        }
        (Some(EngineSettings::Hashes(hashes)), None) if hashes.lists.set.block_entries() == 0 => {
            scan.within("hashes").conflict(
                "block",
                "found no blocked file, expected at least one, or another engine in scan.engines that \
                 is not observed: all files would be clean",
            );
        }
        _ => {}
    }
}

/// Has no default: which engine is used depends on whether a script is configured.
fn names() -> Key<Vec<EngineName>> {
    let name = choice(ENGINES.map(|(engine, name)| (name, engine)));
    let is_valid = |names: &Vec<EngineName>| {
        let is_once = |name| names.iter().filter(|other| *other == name).count() == 1;
        !names.is_empty() && names.iter().all(is_once)
    };
    list(name).filter(is_valid, "at least one engine, each once")
}

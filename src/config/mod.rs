//! The configuration: one TOML file, and environment variables that override single keys.
//!
//! All values are validated here and converted to their final types; other modules do not validate
//! them again. Loading reports all errors at once, each with its location.
//!
//! `source` reads the file and the variables, `reader` provides single keys as a `value`, `types` and
//! `paths` convert it, and one module per section defines that section's keys, defaults and
//! conflicts. `config/default.toml` documents the keys.

mod audit;
mod changes;
mod choices;
mod crypto;
mod display;
mod download;
mod engines;
mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod log;
mod mime;
mod operations;
mod paths;
mod problem;
mod reader;
mod result_cache;
mod sandbox;
mod scan;
mod settings;
mod source;
mod types;
mod value;
mod web;

use std::{ffi::OsString, path::Path};

pub use changes::Changes;
pub use problem::{ConfigErrors, Location, Problem, Warning};
pub use sandbox::FORBIDDEN_PATHS;
pub use settings::{Config, Log, LogFormat};

use crate::keys;
use crate::scan::engines::{EngineSettings, OversizePolicy};
use reader::{Diagnostics, Reader};
use source::Sources;

impl Config {
    /// Loads `file`, if any, and the variables named `MCS_<SECTION>__<KEY>` in `environment`. A
    /// variable overrides its key in the file; an empty variable unsets the key.
    ///
    /// # Errors
    /// Returns all problems found in the file and in the variables.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let sources = Sources::collect(file, environment).map_err(ConfigErrors)?;
        let reader = sources.parse().map_err(ConfigErrors)?;
        let (config, diagnostics) = Self::read(reader, own_user());
        match config {
            Some(config) if diagnostics.problems.is_empty() => Ok((config, diagnostics.warnings)),
            _ => Err(ConfigErrors(diagnostics.problems)),
        }
    }

    /// Returns `None` only if the diagnostics contain a problem.
    fn read(mut reader: Reader<'_>, server: mcs_sandbox::User) -> (Option<Self>, Diagnostics) {
        let web = web::read(&mut reader);
        let scan = scan::read(&mut reader);
        let sandbox = sandbox::read(&mut reader, server);
        let download = download::read(&mut reader);
        let result_cache = result_cache::read(&mut reader);
        let crypto = crypto::read(&mut reader);
        let previous_key_ttl = crypto::previous_key_ttl(&mut reader);
        let log = log::read(&mut reader);
        let operations = operations::read(&mut reader);
        let audit = audit::read(&mut reader);
        if let Some(scan) = &scan
            && download.max_size.saturating_mul(2) > scan.max_spool_size
        {
            let (key, because) = ("download.max_size", "scan.max_spool_size");
            let unreachable = download.max_size > scan.max_spool_size;
            let warning = if unreachable {
                Warning::NeverReached { key, because }
            } else {
                Warning::TightSpool
            };
            reader.section("download").warn(warning);
        }
        if operations
            .as_ref()
            .is_some_and(|operations| operations.listen.conflicts_with(&web.listen))
        {
            reader
                .section("operations")
                .conflict("port", "found the address of [web], expected another address");
        }
        for kind in scan.iter().flat_map(|scan| &scan.engines) {
            let (bounds, because) = match kind {
                EngineSettings::Script(bounds) => (bounds, "scan.script_max_size"),
                EngineSettings::Rules(rules) => (&rules.bounds, "rules.max_size"),
                EngineSettings::Clamd(clamd) => (&clamd.bounds, "clamd.max_size"),
                EngineSettings::Icap(icap) => (&icap.bounds, "icap.max_size"),
            };
            let smaller = bounds.max_size.is_some_and(|limit| limit < download.max_size);
            if smaller && bounds.on_oversize != OversizePolicy::Skip {
                let key = "download.max_size";
                reader.section("download").warn(Warning::NeverReached { key, because });
            }
        }
        if let Some(sandbox) = &sandbox {
            let directory = scan.as_ref().map(|scan| scan.temp_directory.as_path());
            let secret = crypto.as_ref().map(|crypto| match crypto {
                keys::Settings::RequestSecret { path, .. } => ("request_secret_path", path),
                keys::Settings::Pickle { path, .. } => ("pickle_path", path),
            });
            let directory = directory.map(|path| ("scan", "temp_directory", path));
            let secret = secret.map(|(key, path)| ("crypto", key, path.as_path()));
            let audit = audit.as_ref().and_then(|audit| match audit {
                crate::audit::Settings::File(path) => Some(("audit", "path", path.as_path())),
                crate::audit::Settings::Stdout => None,
            });
            let private = directory.into_iter().chain(secret).chain(audit);
            for (section, key, path) in private {
                let mut visible = sandbox.paths.read_only.iter().chain(&sandbox.paths.writable);
                if let Some(visible) = visible.find(|visible| path.starts_with(visible)) {
                    let (path, visible) = (path.display(), visible.display());
                    let message = format!(
                        "found {path}, expected a path outside {visible}, which scripts can read"
                    );
                    reader.section(section).conflict(key, message);
                }
            }
        }
        let config = scan.zip(sandbox).zip(crypto).map(|((scan, sandbox), crypto)| Self {
            web,
            scan,
            sandbox,
            download,
            result_cache,
            crypto,
            previous_key_ttl,
            log,
            operations,
            audit,
        });
        (config, reader.finish())
    }
}

/// Validates `text` as a configuration file in `folder`, and returns the problems.
#[must_use]
pub fn problems(text: &str, folder: &Path) -> Vec<Problem> {
    match Sources::from_text(text, folder).parse() {
        Ok(reader) => Config::read(reader, own_user()).1.problems,
        Err(problems) => problems,
    }
}

fn own_user() -> mcs_sandbox::User {
    mcs_sandbox::User { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
}

#[cfg(test)]
mod tests;

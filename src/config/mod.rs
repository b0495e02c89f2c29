//! The configuration: `config/default.toml` with the defaults, one TOML file, and environment variables that override
//! single keys.
//!
//! All values are validated here and converted to their final types; other modules do not validate
//! them again. Loading reports all errors at once, each with its location.
//!
//! A key is written once, in the struct of its section (`sections`): its name, its type, its bounds, and whether only a
//! start reads it (`keys`). Reading, displaying and comparing follow from that. Its default and its description are in
//! `config/default.toml`. `source` reads the three layers, `reader` provides single keys as a `value`, and `types` and
//! `paths` convert it.

mod changes;
mod checks;
mod duplicates;
mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod key;
mod keys;
mod lines;
mod paths;
mod problem;
mod reader;
pub mod sections;
mod service_links;
mod settings;
mod similar;
mod source;
mod syntax;
mod types;
mod value;

use std::{ffi::OsString, path::Path};

use mcs_sandbox::{Policy, User};

pub use changes::Changes;
pub use problem::{ConfigErrors, Location, Problem, Warning};
pub use sections::{
    log::{Log, LogFormat},
    sandbox::FORBIDDEN_PATHS,
};
pub use settings::Config;

use keys::{Field, KeyGroup};
use reader::{Diagnostics, Reader};
use sections::{audit, crypto, download, result_cache, scan, web};
use settings::{
    admin_section, incident_section, notify_section, operations_section, previous_key_ttl,
    quarantine_section, store_section,
};
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
        let reader = sources.parse(own_user()).map_err(ConfigErrors)?;
        let (config, diagnostics) = Self::read(reader);
        match config {
            Some(config) if diagnostics.problems.is_empty() => Ok((config, diagnostics.warnings)),
            _ => Err(ConfigErrors(diagnostics.problems)),
        }
    }

    /// Loads `[admin]` alone, for commands that ask the running service: the other settings may be valid for the service
    /// only. `None` if the listener is disabled.
    ///
    /// # Errors
    /// If the file cannot be read, or `[admin]` is invalid.
    pub fn load_admin(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Option<sections::admin::Settings>, ConfigErrors> {
        let sources = Sources::collect(file, environment).map_err(ConfigErrors)?;
        let mut reader = sources.parse(own_user()).map_err(ConfigErrors)?;
        let admin = admin_section().read(&mut reader.section("admin"), "admin");
        let is_of_admin =
            |problem: &Problem| problem.key.as_ref().is_some_and(|key| key.starts_with("admin."));
        let problems = reader.finish().problems.into_iter().filter(is_of_admin).collect();
        admin.ok_or(ConfigErrors(problems))
    }

    /// Returns `None` only if the diagnostics contain a problem.
    fn read(mut reader: Reader<'_>) -> (Option<Self>, Diagnostics) {
        let web = web::Settings::read(&mut reader.section("web"));
        let scan = scan::Settings::read(&mut reader.section("scan"));
        let sandbox = Policy::read(&mut reader.section("sandbox"));
        let download = download::Settings::read(&mut reader.section("download"));
        let result_cache = result_cache::Settings::read(&mut reader.section("result_cache"));
        let store = store_section().read(&mut reader.section("store"), "store");
        let incident = incident_section().read(&mut reader.section("incident"), "incident");
        let quarantine = quarantine_section().read(&mut reader.section("quarantine"), "quarantine");
        let notify = notify_section().read(&mut reader.section("notify"), "notify");
        let crypto = crypto::Settings::read(&mut reader.section("crypto"));
        let previous_key_ttl =
            reader.section("crypto").read("previous_key_ttl", &previous_key_ttl());
        let log = Log::read(&mut reader.section("log"));
        let operations = operations_section().read(&mut reader.section("operations"), "operations");
        let admin = admin_section().read(&mut reader.section("admin"), "admin");
        let audit = audit::Settings::read(&mut reader.section("audit"));

        checks::sizes(&mut reader, scan.as_ref(), download.as_ref());
        let listener = operations.as_ref().and_then(Option::as_ref);
        let admin_settings = admin.as_ref().and_then(Option::as_ref);
        checks::listeners(&mut reader, web.as_ref(), listener, admin_settings);
        checks::audit_of_changes(&mut reader, admin_settings, audit.as_ref());
        checks::audit_of_users(&mut reader, audit.as_ref(), download.as_ref());
        let files = checks::PrivateFiles {
            directory: scan.as_ref().map(|scan| &*scan.temp_directory),
            crypto: crypto.as_ref(),
            audit: audit.as_ref(),
            store: store.as_ref().and_then(Option::as_ref),
            admin: admin_settings,
            incident: incident.as_ref(),
            quarantine: quarantine.as_ref().and_then(Option::as_ref),
            notify: notify.as_ref(),
        };
        checks::incidents(&mut reader, &files, store.as_ref(), download.as_ref());
        checks::rescans(&mut reader, &files, store.as_ref(), download.as_ref());
        checks::private_paths(&mut reader, sandbox.as_ref(), &files);
        let config = || {
            Some(Self {
                web: web?,
                scan: scan?,
                sandbox: sandbox?,
                download: download?,
                result_cache: result_cache?,
                store: store?,
                incident: incident?,
                quarantine: quarantine?,
                notify: notify?,
                crypto: crypto?,
                previous_key_ttl: previous_key_ttl?,
                log: log?,
                operations: operations?,
                admin: admin?,
                audit: audit?,
            })
        };
        (config(), reader.finish())
    }
}

/// Validates `text` as a configuration file in `folder`, and returns the problems.
#[must_use]
pub fn problems(text: &str, folder: &Path) -> Vec<Problem> {
    match Sources::from_text(text, folder).parse(own_user()) {
        Ok(reader) => Config::read(reader).1.problems,
        Err(problems) => problems,
    }
}

#[cfg(test)]
impl Config {
    /// Returns the defaults, with any script and key.
    pub(crate) fn for_test() -> Self {
        let required =
            [("MCS_SCAN__SCRIPT", "/bin/true"), ("MCS_CRYPTO__REQUEST_SECRET_PATH", "/nowhere")];
        let variables = required.map(|(name, value)| (name.into(), value.into()));
        Self::load(None, variables.into_iter()).unwrap().0
    }
}

fn own_user() -> User {
    User { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
}

#[cfg(test)]
mod tests;

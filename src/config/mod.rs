//! The configuration: one TOML file and variables that replace keys of it, checked once, in final
//! types; nothing downstream checks again. Whatever is wrong is told at once, each with its place.
//!
//! `source` finds what is written, `reader` hands it out key by key, `kinds` and `paths` turn
//! single values into their final types, and a module for each section knows that section's keys,
//! defaults and impossible combinations. `config/default.toml` says what the keys mean.

mod audit;
mod changes;
mod crypto;
mod download;
mod engines;
mod kinds;
mod log;
mod mime;
mod operations;
mod paths;
mod problem;
mod reader;
mod result_cache;
mod sandbox;
mod scan;
mod show;
mod source;
mod web;

use std::{ffi::OsString, path::Path, time::Duration};

pub use changes::Changes;
pub use problem::{ConfigErrors, Place, Problem, Warning};
pub use sandbox::NEVER_SHOWN;
pub(crate) use show::{key as toml_key, quoted, size as written_size};

use crate::scan::engines::{Kind, Otherwise};
use crate::{http, keys, media};
use reader::{Findings, Reader};
use source::Sources;

/// All that the service is told, checked. Displayed, it is the file that would say the same, with
/// every key that has a value; secrets are shown as `..`.
#[derive(Clone)]
pub struct Config {
    /// `[web]`
    pub web: http::Settings,
    /// `[scan]`
    pub scan: crate::scan::Settings,
    /// `[sandbox]`
    pub sandbox: mcs_sandbox::Policy,
    /// `[download]`
    pub download: media::Settings,
    /// `[result_cache]`
    pub result_cache: crate::scan::cache::Settings,
    /// `[crypto]`
    pub crypto: keys::Settings,
    /// How long a request key that was replaced still opens bodies.
    pub previous_key_ttl: Duration,
    /// `[log]`
    pub log: Log,
    /// `[operations]`, unless it is off.
    pub operations: Option<crate::operations::Settings>,
    /// `[audit]`, if there is one.
    pub audit: Option<crate::audit::Settings>,
}

/// `[log]`, checked.
#[derive(Clone, Debug)]
pub struct Log {
    /// A `tracing_subscriber` filter, e.g. `info`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogFormat {
    Human,
    Json,
}

impl Config {
    /// Reads the file, if there is one, and of the environment the variables named
    /// `MCS_<SECTION>__<KEY>`: each replaces that key of the file, an empty one takes it out.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let sources = Sources::gather(file, environment).map_err(ConfigErrors)?;
        let reader = sources.parse().map_err(ConfigErrors)?;
        let (config, findings) = Self::read(reader, own_user());
        match config {
            Some(config) if findings.problems.is_empty() => Ok((config, findings.warnings)),
            _ => Err(ConfigErrors(findings.problems)),
        }
    }

    /// `None` only where a problem was told.
    fn read(mut reader: Reader<'_>, server: mcs_sandbox::User) -> (Option<Self>, Findings) {
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
            let never = download.max_size > scan.max_spool_size;
            let warning =
                if never { Warning::NeverReached { key, because } } else { Warning::TightSpool };
            reader.section("download").warn(warning);
        }
        if operations.as_ref().is_some_and(|it| it.listen.is_same_place(&web.listen)) {
            reader
                .section("operations")
                .conflict("port", "found where [web] listens, expected another place");
        }
        for kind in scan.iter().flat_map(|scan| &scan.engines) {
            let (bounds, because) = match kind {
                Kind::Script(bounds) => (bounds, "scan.script_max_size"),
                Kind::Rules(rules) => (&rules.bounds, "rules.max_size"),
                Kind::Clamd(clamd) => (&clamd.bounds, "clamd.max_size"),
                Kind::Icap(icap) => (&icap.bounds, "icap.max_size"),
            };
            let smaller = bounds.max_size.is_some_and(|limit| limit < download.max_size);
            if smaller && bounds.larger == Otherwise::Fail {
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
            let kept = directory.map(|path| ("scan", "temp_directory", path));
            let secret = secret.map(|(key, path)| ("crypto", key, path.as_path()));
            let record = audit.as_ref().and_then(|audit| match audit {
                crate::audit::Settings::File(path) => Some(("audit", "path", path.as_path())),
                crate::audit::Settings::Stdout => None,
            });
            let kept = kept.into_iter().chain(secret).chain(record);
            for (section, key, own) in kept {
                let mut shown = sandbox.paths.read_only.iter().chain(&sandbox.paths.writable);
                if let Some(shown) = shown.find(|shown| own.starts_with(shown)) {
                    let (own, shown) = (own.display(), shown.display());
                    let message = format!(
                        "found {own}, expected a path outside what scripts are shown ({shown})"
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

/// What is wrong with a file of this text in this folder.
pub(crate) fn problems(text: &str, folder: &Path) -> Vec<Problem> {
    match Sources::of_text(text, folder).parse() {
        Ok(reader) => Config::read(reader, own_user()).1.problems,
        Err(problems) => problems,
    }
}

fn own_user() -> mcs_sandbox::User {
    mcs_sandbox::User { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
}

#[cfg(test)]
mod tests;

//! `[scan]`.

use std::{
    ffi::OsString, num::NonZero, path::PathBuf, thread::available_parallelism, time::Duration,
};

use mcs_filetype::MimeRules;
use toml::de::DeValue;

use super::{
    bounds::{ContentPolicy, content_policy},
    canary::CanarySettings,
    engines::EngineSettings,
    prelude::*,
    unpack,
};
use crate::ownership::find_exposure;

settings! {
    /// `[scan]`, validated.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Settings {
        /// The engines, at least one, each kind at most once. All must report a file clean.
        pub engines: Vec<EngineSettings> = group(),
        /// `[unpack]`, if one of the engines unpacks files.
        pub unpack: Option<unpack::Settings> = within("unpack", group()),
        /// Effect of contents that need a password, detected by the service or by an engine.
        pub on_encrypted: ContentPolicy = content_policy(),
        /// Effect of a limit inside the file at which an engine stopped.
        pub on_limit: ContentPolicy = content_policy(),
        /// Interval at which remote engines are asked for their versions.
        pub version_interval: Duration = duration(SECOND..=MAX_DURATION),
        /// The script, if it is one of the engines.
        pub script: Option<PathBuf> = optional(paths::key(paths::program)),
        /// The script's arguments; the path of the file is appended.
        pub script_args: Vec<OsString> = list(argument()),
        /// Time limit of one run of the script.
        pub timeout: Duration = duration(MILLISECOND..=MAX_DURATION),
        /// Time limit from acceptance of a request to its verdict.
        pub deadline: Duration = duration(MILLISECOND..=MAX_DURATION),
        /// Number of concurrent jobs, 1..=1024.
        pub workers: usize = restart(integer(1..=1024)),
        /// Number of concurrent programs in the sandbox, 1..=workers.
        pub max_scripts: usize =
            integer(1..=1024).or_else(|| available_parallelism().map_or(1, NonZero::get)),
        /// Time after which a program is demoted while another tenant waits for a scan slot.
        pub slow_after: Duration = duration(MILLISECOND..=MAX_DURATION),
        /// Maximum number of waiting jobs, 1..=65536.
        pub queue_capacity: usize = restart(integer(1..=65536)),
        /// Absolute path, of `[A-Za-z0-9._/-]+`, because scripts leave `$1` unquoted.
        pub temp_directory: PathBuf = restart(paths::key(paths::temp_directory)),
        /// Whether other users may be able to replace the directory.
        pub temp_directory_shared: bool = boolean(),
        /// Maximum total disk space of all jobs and all bodies being served, bytes.
        pub max_spool_size: u64 = size(1..=PEBIBYTE),
        /// Program and arguments; the path of the file is appended.
        pub removal_command: Option<(PathBuf, Vec<OsString>)> = optional(command()),
        /// The allowed types, by content.
        pub mime: MimeRules = group(),
        /// Maximum length of a finding, bytes.
        pub max_output_size: usize = memory_size(0..=1 << 20),
        /// Exit codes of the script that are failures rather than verdicts; never contains 0.
        pub failure_exit_codes: Vec<i32> = list(integer(0..=255).filter(
            |code| *code != 0,
            "an exit code from 1 to 255: 0 always means clean",
        )),
        /// The canary, if there is one.
        pub canary: Option<CanarySettings> = group(),
    }
    check check
}

fn check(mut settings: Settings, scan: &mut Section<'_, '_>) -> Settings {
    let is_script = |engine: &EngineSettings| matches!(engine, EngineSettings::Script(_));
    if !settings.engines.iter().any(is_script) {
        // Validated although unused, so that enabling the engine later does not fail.
        settings.script = None;
    }
    if !settings.engines.iter().any(EngineSettings::unpacks) {
        settings.unpack = None;
        let since = "scan.engines lists neither \"rules\" nor \"hashes\"";
        scan.within("unpack").warn_unused(|_| true, since);
    }
    if settings.canary.is_none() {
        scan.warn(Warning::CanaryOff);
    }
    if settings.timeout > settings.deadline {
        scan.warn(Warning::NeverReached { key: "scan.timeout", because: "scan.deadline" });
    }
    let (count, workers) = (settings.max_scripts, settings.workers);
    if scan.has("max_scripts") && count > workers {
        scan.conflict(
            "max_scripts",
            format!("found {count}, expected at most scan.workers, {workers}"),
        );
    }
    settings.max_scripts = count.min(workers);
    check_temp_directory(&settings, scan);
    settings
}

/// Rejects a directory that another user can replace, or warns when `temp_directory_shared` is set.
fn check_temp_directory(settings: &Settings, scan: &mut Section<'_, '_>) {
    const KEY: &str = "temp_directory";
    let Some(value) = scan.raw(KEY).filter(|value| paths::temp_directory(*value).is_ok()) else {
        return;
    };
    // The links of the path as written count, too.
    let Ok(written) = paths::as_written(value) else { return };
    let path = format::path(&written);
    match find_exposure(&written) {
        Ok(None) => {}
        Ok(Some(exposure)) if settings.temp_directory_shared => {
            scan.warn(Warning::SharedTempDirectory(exposure));
        }
        Ok(Some(exposure)) => scan.conflict(
            KEY,
            format!(
                "found {path}, expected a directory that only root and the service's user can replace: \
                 {exposure}; scan.temp_directory_shared = true accepts it, for a volume that only the \
                 containers of one pod share",
            ),
        ),
        Err(error) => scan.conflict(
            KEY,
            format!("found {path}, whose parent directories cannot be examined: {error}"),
        ),
    }
}

fn argument() -> Key<OsString> {
    Key::new(|value| parse_text(value).map(OsString::from), |text| format::os_string(text))
}

/// A program, resolved like the script, and its arguments.
fn command() -> Key<(PathBuf, Vec<OsString>)> {
    let format = |(program, arguments): &(PathBuf, Vec<OsString>)| {
        let words = [program.as_os_str()].into_iter().chain(arguments.iter().map(AsRef::as_ref));
        format!("[{}]", words.map(format::os_string).collect::<Vec<_>>().join(", "))
    };
    Key::new(parse_command, format)
}

fn parse_command(value: RawValue<'_>) -> ParseResult<(PathBuf, Vec<OsString>)> {
    let DeValue::Array(words) = value.toml else {
        return value.invalid("a list of program and arguments, like [\"/usr/bin/shred\", \"-u\"]");
    };
    let mut arguments = list(argument()).parse(value)?;
    let Some(program) = words.first() else {
        return value.invalid("at least a program; remove the key to run none");
    };
    let program =
        paths::program(RawValue { toml: program.get_ref(), raw: None, base: value.base })?;
    arguments.remove(0);
    Ok((program, arguments))
}

//! `[scan]`.

use std::{ffi::OsString, num::NonZero, path::PathBuf, time::Duration};

use toml::de::DeValue;

use super::{
    choices,
    engines::{self, EngineName},
    format, mime, paths,
    problem::Warning,
    reader::{Reader, Section},
    types::{self, MAX_DURATION, duration, integer, memory_size, size},
    value::{ParseResult, RawValue},
};
use crate::{
    ownership::find_exposure,
    scan::{
        Settings,
        engines::ContentPolicy,
        settings::{CanarySamples, CanarySettings},
    },
};

const DEFAULT_TEMP_DIRECTORY: &str = "/tmp";
const MILLISECOND: Duration = Duration::from_millis(1);
const PEBIBYTE: u64 = 1 << 50;

/// Exit codes of a shell that cannot execute (126) or find (127) a command.
const SHELL_FAILURES: [i32; 2] = [126, 127];

pub(super) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
    let mut scan = reader.section("scan");
    let engines = engines::names(&mut scan);
    let mut content_policy = |key| scan.read(key, types::choice(&choices::CONTENT_POLICIES));
    let on_encrypted = content_policy("on_encrypted").unwrap_or(ContentPolicy::Refuse);
    let on_limit = content_policy("on_limit").unwrap_or(ContentPolicy::Fail);
    let version_interval = scan
        .read("version_interval", duration(Duration::from_secs(1)..=MAX_DURATION))
        .unwrap_or(Duration::from_secs(60));
    let script = script(&mut scan, engines.contains(&EngineName::Script));
    let script_bounds = engines::script_bounds(&mut scan);
    let script_args = scan.read("script_args", types::list(argument)).unwrap_or_default();
    let timeout = scan
        .read("timeout", duration(MILLISECOND..=MAX_DURATION))
        .unwrap_or(Duration::from_secs(60));
    let deadline = scan
        .read("deadline", duration(MILLISECOND..=MAX_DURATION))
        .unwrap_or(Duration::from_secs(5 * 60));
    if timeout > deadline {
        scan.warn(Warning::NeverReached { key: "scan.timeout", because: "scan.deadline" });
    }
    let workers = scan.read("workers", integer(1..=1024)).unwrap_or(32);
    let max_scripts = max_scripts(&mut scan, workers);
    let slow_after = scan
        .read("slow_after", duration(MILLISECOND..=MAX_DURATION))
        .unwrap_or(Duration::from_secs(2));
    let queue_capacity = scan.read("queue_capacity", integer(1..=65536)).unwrap_or(256);
    let temp_directory_shared =
        scan.read("temp_directory_shared", types::boolean).unwrap_or_default();
    let temp_directory = temp_directory(&mut scan, temp_directory_shared);
    let max_spool_size = scan.read("max_spool_size", size(1..=PEBIBYTE)).unwrap_or(4 << 30);
    let removal_command = scan.read("removal_command", command);
    let mime = mime::read(&mut scan);
    let max_output_size = scan.read("max_output_size", memory_size(0..=1 << 20)).unwrap_or(4 << 10);
    let failure_exit_codes = scan
        .read("failure_exit_codes", types::list(failure_exit_code))
        .unwrap_or_else(|| SHELL_FAILURES.into());

    let canary = canary(&mut scan);
    let engines = engines::read(reader, &engines, &script_bounds);

    Some(Settings {
        engines: engines?,
        on_encrypted,
        on_limit,
        version_interval,
        script: script?,
        script_args,
        timeout,
        deadline,
        workers,
        max_scripts,
        slow_after,
        queue_capacity,
        temp_directory: temp_directory?,
        temp_directory_shared,
        max_spool_size,
        removal_command,
        mime,
        max_output_size,
        failure_exit_codes,
        canary,
    })
}

/// Reads `scan.script`. The outer `None` means that a problem was recorded.
#[expect(clippy::option_option, reason = "outer: invalid; inner: no script")]
fn script(scan: &mut Section<'_, '_>, listed: bool) -> Option<Option<PathBuf>> {
    if !listed {
        // Validated although unused, so that enabling the engine later does not fail.
        let _unused = scan.read("script", paths::program);
        return Some(None);
    }
    scan.require("script", "the path of an executable file", paths::program).map(Some)
}

fn canary(scan: &mut Section<'_, '_>) -> Option<CanarySettings> {
    let samples = scan.read("canary", samples).unwrap_or(Some(CanarySamples::Eicar));
    let interval = scan
        .read("canary_interval", duration(Duration::from_secs(1)..=MAX_DURATION))
        .unwrap_or(Duration::from_secs(10 * 60));
    Some(CanarySettings { samples: samples?, interval })
}

/// Parses `scan.canary`; `None` means off.
fn samples(value: RawValue<'_>) -> ParseResult<Option<CanarySamples>> {
    const EXPECTED: &str = "\"eicar\", \"off\" or { infected = \"PATH\", clean = \"PATH\" }";
    match value.text() {
        Some("eicar") => return Ok(Some(CanarySamples::Eicar)),
        Some("off") => return Ok(None),
        _ => {}
    }
    let DeValue::Table(_) = value.toml else { return value.invalid(EXPECTED) };
    let mut files = types::table(|_, value| paths::file(value).map(Some))(value)?;
    let names = types::table(|name, _| Ok(name.to_owned()))(value)?;
    let mut take = |wanted| {
        let index = names.iter().position(|name| name == wanted)?;
        files.get_mut(index)?.take()
    };
    match (take("infected"), take("clean"), names.len()) {
        (Some(infected), Some(clean), 2) => Ok(Some(CanarySamples::Files { infected, clean })),
        _ => value.invalid(EXPECTED),
    }
}

fn max_scripts(scan: &mut Section<'_, '_>, workers: usize) -> usize {
    let configured = scan.read("max_scripts", integer(1..=1024));
    if let Some(count) = configured
        && count > workers
    {
        scan.conflict(
            "max_scripts",
            format!("found {count}, expected at most scan.workers, {workers}"),
        );
    }
    configured.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, NonZero::get).min(workers)
    })
}

/// Parses `scan.temp_directory`. Rejects a directory that another user can replace, or warns when `shared` is set.
fn temp_directory(scan: &mut Section<'_, '_>, shared: bool) -> Option<PathBuf> {
    const KEY: &str = "temp_directory";
    let written =
        scan.read(KEY, |value| Ok((paths::temp_directory(value)?, paths::as_written(value)?)));
    let (resolved, written) = match written {
        Some(paths) => paths,
        None if scan.has(KEY) => return None,
        None => (default_temp_directory(scan)?, DEFAULT_TEMP_DIRECTORY.into()),
    };
    match find_exposure(&written) {
        Ok(None) => {}
        Ok(Some(exposure)) if shared => scan.warn(Warning::SharedTempDirectory(exposure)),
        Ok(Some(exposure)) => scan.conflict(
            KEY,
            format!(
                "found {}, expected a directory that only root and the service's user can replace: \
                 {exposure}; scan.temp_directory_shared = true accepts it, for a volume that only the \
                 containers of one pod share",
                format::path(&written)
            ),
        ),
        Err(error) => scan.conflict(
            KEY,
            format!("found {}, whose parent directories cannot be examined: {error}", format::path(&written)),
        ),
    }
    Some(resolved)
}

/// Validates the default like a configured directory: `/tmp` is a link, or read-only, on some systems.
fn default_temp_directory(scan: &mut Section<'_, '_>) -> Option<PathBuf> {
    let value = DeValue::String(DEFAULT_TEMP_DIRECTORY.into());
    let checked = paths::temp_directory(RawValue { toml: &value, raw: None, base: "/".as_ref() });
    if checked.is_err() {
        scan.missing("temp_directory", "a writable directory, since /tmp is not writable");
    }
    checked.ok()
}

fn argument(value: RawValue<'_>) -> ParseResult<OsString> {
    types::text(value).map(OsString::from)
}

/// Parses a program, resolved like the script, and its arguments.
fn command(value: RawValue<'_>) -> ParseResult<(PathBuf, Vec<OsString>)> {
    let DeValue::Array(words) = value.toml else {
        return value.invalid("a list of program and arguments, like [\"/usr/bin/shred\", \"-u\"]");
    };
    let mut arguments = types::list(argument)(value)?;
    let Some(program) = words.first() else {
        return value.invalid("at least a program; remove the key to run none");
    };
    let program =
        paths::program(RawValue { toml: program.get_ref(), raw: None, base: value.base })?;
    arguments.remove(0);
    Ok((program, arguments))
}

fn failure_exit_code(value: RawValue<'_>) -> ParseResult<i32> {
    integer(0..=255)(value).and_then(|code| match code {
        0 => value.invalid("an exit code from 1 to 255: 0 always means clean"),
        code => Ok(code),
    })
}

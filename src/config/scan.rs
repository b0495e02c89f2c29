//! `[scan]`.

use std::{ffi::OsString, num::NonZero, path::PathBuf, time::Duration};

use toml::de::DeValue;

use super::{
    engines::{self, Name},
    kinds::{self, LONGEST, choice, duration, integer, memory_size, size},
    mime, paths,
    problem::Warning,
    reader::{Parsed, Reader, Section, Value},
    show,
};
use crate::{
    ownership::find_exposure,
    scan::{
        Settings,
        canary::{self, Samples},
        encrypted::OnEncrypted,
    },
};

const DEFAULT_TEMP_DIRECTORY: &str = "/tmp";
const MILLISECOND: Duration = Duration::from_millis(1);
const PEBIBYTE: u64 = 1 << 50;

/// What a shell says where it cannot execute, or cannot find, what the script names.
const SHELL_FAILURES: [i32; 2] = [126, 127];

pub(super) const ON_ENCRYPTED: [(&str, OnEncrypted); 3] =
    [("refuse", OnEncrypted::Refuse), ("fail", OnEncrypted::Fail), ("pass", OnEncrypted::Pass)];

pub(super) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
    let mut scan = reader.section("scan");
    let engines = engines::names(&mut scan);
    let on_encrypted =
        scan.read("on_encrypted", choice(&ON_ENCRYPTED)).unwrap_or(OnEncrypted::Refuse);
    let version_interval = scan
        .read("version_interval", duration(Duration::from_secs(1)..=LONGEST))
        .unwrap_or(Duration::from_secs(60));
    let script = script(&mut scan, engines.contains(&Name::Script));
    let script_bounds = engines::script_bounds(&mut scan);
    let script_args = scan.read("script_args", kinds::list(argument)).unwrap_or_default();
    let timeout =
        scan.read("timeout", duration(MILLISECOND..=LONGEST)).unwrap_or(Duration::from_secs(60));
    let deadline = scan
        .read("deadline", duration(MILLISECOND..=LONGEST))
        .unwrap_or(Duration::from_secs(5 * 60));
    if timeout > deadline {
        scan.warn(Warning::NeverReached { key: "scan.timeout", because: "scan.deadline" });
    }
    let workers = scan.read("workers", integer(1..=1024)).unwrap_or(32);
    let max_scripts = max_scripts(&mut scan, workers);
    let queue_capacity = scan.read("queue_capacity", integer(1..=65536)).unwrap_or(256);
    let temp_directory_shared =
        scan.read("temp_directory_shared", kinds::boolean).unwrap_or_default();
    let temp_directory = temp_directory(&mut scan, temp_directory_shared);
    let max_spool_size = scan.read("max_spool_size", size(1..=PEBIBYTE)).unwrap_or(4 << 30);
    let removal_command = scan.read("removal_command", command);
    let mime = mime::read(&mut scan);
    let max_output_size = scan.read("max_output_size", memory_size(0..=1 << 20)).unwrap_or(4 << 10);
    let failure_exit_codes = scan
        .read("failure_exit_codes", kinds::list(failure_exit_code))
        .unwrap_or_else(|| SHELL_FAILURES.into());

    let canary = canary(&mut scan);
    let engines = engines::read(reader, &engines, &script_bounds);

    Some(Settings {
        engines: engines?,
        on_encrypted,
        version_interval,
        script: script?,
        script_args,
        timeout,
        deadline,
        workers,
        max_scripts,
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

/// None outside where it is needed and not there.
#[expect(clippy::option_option, reason = "outside, a problem was told; inside, there is no script")]
fn script(scan: &mut Section<'_, '_>, listed: bool) -> Option<Option<PathBuf>> {
    if !listed {
        // Checked all the same: it may be listed tomorrow.
        let _unused = scan.read("script", paths::program);
        return Some(None);
    }
    scan.require("script", "the path of an executable file", paths::program).map(Some)
}

fn canary(scan: &mut Section<'_, '_>) -> Option<canary::Settings> {
    let samples = scan.read("canary", samples).unwrap_or(Some(Samples::Eicar));
    let interval = scan
        .read("canary_interval", duration(Duration::from_secs(1)..=LONGEST))
        .unwrap_or(Duration::from_secs(10 * 60));
    Some(canary::Settings { samples: samples?, interval })
}

/// None is off.
fn samples(value: Value<'_>) -> Parsed<Option<Samples>> {
    const EXPECTED: &str = "\"eicar\", \"off\" or { infected = \"PATH\", clean = \"PATH\" }";
    match value.text() {
        Some("eicar") => return Ok(Some(Samples::Eicar)),
        Some("off") => return Ok(None),
        _ => {}
    }
    let DeValue::Table(_) = value.toml else { return value.wrong(EXPECTED) };
    let mut files = kinds::table(|_, value| paths::file(value).map(Some))(value)?;
    let names = kinds::table(|name, _| Ok(name.to_owned()))(value)?;
    let mut take = |wanted| {
        let place = names.iter().position(|name| name == wanted)?;
        files.get_mut(place)?.take()
    };
    match (take("infected"), take("clean"), names.len()) {
        (Some(infected), Some(clean), 2) => Ok(Some(Samples::Files { infected, clean })),
        _ => value.wrong(EXPECTED),
    }
}

fn max_scripts(scan: &mut Section<'_, '_>, workers: usize) -> usize {
    let written = scan.read("max_scripts", integer(1..=1024));
    if let Some(written) = written
        && written > workers
    {
        scan.conflict(
            "max_scripts",
            format!("found {written}, expected at most as many as scan.workers, {workers}"),
        );
    }
    written.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, NonZero::get).min(workers)
    })
}

/// Rejects a directory that another user can replace, with all jobs in it; warns of it where `shared`.
fn temp_directory(scan: &mut Section<'_, '_>, shared: bool) -> Option<PathBuf> {
    const KEY: &str = "temp_directory";
    let written =
        scan.read(KEY, |value| Ok((paths::temp_directory(value)?, paths::as_written(value)?)));
    let (resolved, written) = match written {
        Some(both) => both,
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
                show::path(&written)
            ),
        ),
        Err(error) => scan.conflict(
            KEY,
            format!("found {}, whose directories cannot be looked at: {error}", show::path(&written)),
        ),
    }
    Some(resolved)
}

/// Checked like a written one: `/tmp` is a link, or read-only, on some systems.
fn default_temp_directory(scan: &mut Section<'_, '_>) -> Option<PathBuf> {
    let value = DeValue::String(DEFAULT_TEMP_DIRECTORY.into());
    let checked = paths::temp_directory(Value { toml: &value, raw: None, base: "/".as_ref() });
    if checked.is_err() {
        scan.missing("temp_directory", "a writable directory, since /tmp is none here");
    }
    checked.ok()
}

fn argument(value: Value<'_>) -> Parsed<OsString> {
    kinds::text(value).map(OsString::from)
}

/// A program, found as the script is, and its arguments.
fn command(value: Value<'_>) -> Parsed<(PathBuf, Vec<OsString>)> {
    let DeValue::Array(words) = value.toml else {
        return value.wrong("a list of program and arguments, like [\"/usr/bin/shred\", \"-u\"]");
    };
    let mut arguments = kinds::list(argument)(value)?;
    let Some(program) = words.first() else {
        return value.wrong("at least a program; leave the key out to run none");
    };
    let program = paths::program(Value { toml: program.get_ref(), raw: None, base: value.base })?;
    arguments.remove(0);
    Ok((program, arguments))
}

fn failure_exit_code(value: Value<'_>) -> Parsed<i32> {
    integer(0..=255)(value).and_then(|code| match code {
        0 => value.wrong("an exit code from 1 to 255: 0 is the only word for clean"),
        code => Ok(code),
    })
}

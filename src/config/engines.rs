//! `scan.engines`, and the sections of the engines: `[rules]`, `[clamd]`, `[icap]`.

use std::{error::Error, path::PathBuf, time::Duration};

use mcs_evaluator::RuleSet;
use url::Url;

use super::{
    choices::{METHODS, OVERSIZE_POLICIES, PREVIEWS, SKIP_POLICIES},
    paths,
    problem::InvalidValue,
    reader::{Reader, Section},
    types::{self, MAX_DURATION, choice, duration, list, size},
    value::{ParseResult, RawValue},
};
use crate::scan::engines::{
    Bounds, EngineSettings, OversizePolicy, SkipPolicy,
    clamd::{self, Address},
    icap::{self, Method},
    rules,
};

const PEBIBYTE: u64 = 1 << 50;

/// Default socket on Debian.
const CLAMD_SOCKET: &str = "/run/clamav/clamd.ctl";

/// Debian's `MaxFileSize`, in bytes: by default clamd reports larger files clean without scanning them.
const CLAMD_MAX_SIZE: u64 = 25 << 20;

/// Debian's limit for c-icap, in bytes.
const ICAP_MAX_SIZE: u64 = 5 << 20;

/// The names in `scan.engines`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EngineName {
    Script,
    Rules,
    Clamd,
    Icap,
}

const NAMES: [(&str, EngineName); 4] = [
    ("script", EngineName::Script),
    ("rules", EngineName::Rules),
    ("clamd", EngineName::Clamd),
    ("icap", EngineName::Icap),
];

/// `scan.engines`.
pub(super) fn names(scan: &mut Section<'_, '_>) -> Vec<EngineName> {
    let names = scan.read("engines", |value| {
        let names = list(choice(&NAMES))(value)?;
        let twice =
            NAMES.iter().any(|(_, name)| names.iter().filter(|other| *other == name).count() > 1);
        if names.is_empty() || twice {
            value.invalid("at least one engine, each once")
        } else {
            Ok(names)
        }
    });
    names.unwrap_or_else(|| {
        // Selects the script if one is configured.
        vec![if scan.has("script") { EngineName::Script } else { EngineName::Rules }]
    })
}

/// Reads the script's bounds, which are keys of `[scan]`.
pub(super) fn script_bounds(scan: &mut Section<'_, '_>) -> Bounds {
    Bounds {
        max_size: scan.read("script_max_size", size(1..=PEBIBYTE)),
        on_oversize: scan
            .read("script_on_oversize", choice(&OVERSIZE_POLICIES))
            .unwrap_or(OversizePolicy::Fail),
        on_failure: scan
            .read("script_on_failure", choice(&SKIP_POLICIES))
            .unwrap_or(SkipPolicy::Fail),
    }
}

/// Reads the engines' settings. Returns `None` only after recording a problem.
pub(super) fn read(
    reader: &mut Reader<'_>,
    names: &[EngineName],
    script: &Bounds,
) -> Option<Vec<EngineSettings>> {
    let rules = rules(&mut reader.section("rules"), names.contains(&EngineName::Rules));
    let clamd = clamd(&mut reader.section("clamd"));
    let icap = icap(&mut reader.section("icap"), names.contains(&EngineName::Icap));
    let settings = |name: &EngineName| match name {
        EngineName::Script => Some(EngineSettings::Script(script.clone())),
        EngineName::Rules => rules.clone().map(EngineSettings::Rules),
        EngineName::Clamd => Some(EngineSettings::Clamd(clamd.clone())),
        EngineName::Icap => icap.clone().map(EngineSettings::Icap),
    };
    names.iter().map(settings).collect()
}

fn rules(section: &mut Section<'_, '_>, listed: bool) -> Option<rules::Settings> {
    const EXPECTED: &str = "files or directories of YARA rules, unless scan.script is set or \
                            scan.engines lists others";
    if listed && !section.has("paths") {
        section.missing("paths", EXPECTED);
    }
    let read = section.read("paths", |value| {
        let paths = non_empty(paths::path)(value)?;
        match RuleSet::load(&paths) {
            Ok(rules) => Ok((paths, rules)),
            Err(error) => {
                let cause = error.source().map(|source| format!(": {source}"));
                let found = format!("{error}{}", cause.unwrap_or_default());
                Err(InvalidValue::single(found, "YARA rules"))
            }
        }
    });
    let ignore = section.read("ignore", list(types::text)).unwrap_or_default();
    if let Some((_, rules)) = &read
        && let Some(unknown) = ignore.iter().find(|name| !rules.names().contains(*name))
    {
        section.conflict(
            "ignore",
            format!("found \"{unknown}\", expected names of rules in rules.paths"),
        );
    }
    let (timeout, bounds) = (timeout(section), bounds(section, None));
    let (paths, rules): (Vec<PathBuf>, _) = read?;
    Some(rules::Settings { paths, ignore, rules, timeout, bounds })
}

fn clamd(section: &mut Section<'_, '_>) -> clamd::Settings {
    let addresses = section
        .read("addresses", non_empty(address))
        .unwrap_or_else(|| vec![Address::Unix(CLAMD_SOCKET.into())]);
    let (timeout, bounds) = (timeout(section), bounds(section, Some(CLAMD_MAX_SIZE)));
    clamd::Settings { addresses, timeout, bounds }
}

fn icap(section: &mut Section<'_, '_>, listed: bool) -> Option<icap::Settings> {
    const EXPECTED: &str = "a list of URLs like \"icap://127.0.0.1:1344/avscan\"";
    if listed && !section.has("urls") {
        section.missing("urls", EXPECTED);
    }
    let urls = section.read("urls", non_empty(service));
    let method = section.read("method", choice(&METHODS)).unwrap_or(Method::Respmod);
    let preview = section.read("preview", choice(&PREVIEWS)).unwrap_or(true);
    let ca_certificates = section.read("ca_certificates", paths::file);
    let (timeout, bounds) = (timeout(section), bounds(section, Some(ICAP_MAX_SIZE)));
    Some(icap::Settings { urls: urls?, method, preview, ca_certificates, timeout, bounds })
}

fn timeout(section: &mut Section<'_, '_>) -> Duration {
    let timeout = section.read("timeout", duration(Duration::from_millis(1)..=MAX_DURATION));
    timeout.unwrap_or(Duration::from_secs(60))
}

fn bounds(section: &mut Section<'_, '_>, max_size: Option<u64>) -> Bounds {
    Bounds {
        max_size: section.read("max_size", size(1..=PEBIBYTE)).or(max_size),
        on_oversize: section
            .read("on_oversize", choice(&OVERSIZE_POLICIES))
            .unwrap_or(OversizePolicy::Fail),
        on_failure: section.read("on_failure", choice(&SKIP_POLICIES)).unwrap_or(SkipPolicy::Fail),
    }
}

/// Parses a list with at least one element.
fn non_empty<T>(
    parse: impl Fn(RawValue<'_>) -> ParseResult<T>,
) -> impl Fn(RawValue<'_>) -> ParseResult<Vec<T>> {
    let list = list(parse);
    move |value| match list(value)? {
        elements if elements.is_empty() => value.invalid("at least one"),
        elements => Ok(elements),
    }
}

/// Parses a socket path if the text contains a slash, otherwise a host and port.
fn address(value: RawValue<'_>) -> ParseResult<Address> {
    const EXPECTED: &str = "a socket path or HOST:PORT";
    let text = types::text(value).or_else(|_| value.invalid(EXPECTED))?;
    if text.contains('/') {
        return paths::path(value).map(Address::Unix);
    }
    let Some((written, port)) = text.rsplit_once(':') else { return value.invalid(EXPECTED) };
    let host = match written.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(Some(inner)) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
        None if !written.contains([':', '[', ']']) => written,
        _ => return value.invalid(EXPECTED),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    match port.parse::<u16>() {
        Ok(port) if port > 0 && !host.is_empty() && host.chars().all(is_name) => {
            Ok(Address::Tcp { host: host.to_owned(), port })
        }
        _ => value.invalid(EXPECTED),
    }
}

fn service(value: RawValue<'_>) -> ParseResult<Url> {
    const EXPECTED: &str =
        "a URL like \"icap://127.0.0.1:1344/avscan\" or \"icaps://…\", with a service";
    let url = value.text().and_then(|text| Url::parse(text).ok()).filter(|url| {
        ["icap", "icaps"].contains(&url.scheme())
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.path().len() > 1
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && url.port() != Some(0)
    });
    url.map_or_else(|| value.invalid(EXPECTED), Ok)
}

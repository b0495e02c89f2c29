//! `scan.engines`, and the sections of the engines: `[rules]`, `[clamd]`, `[icap]`.

use std::{error::Error, path::PathBuf, time::Duration};

use mcs_rules::RuleSet;
use url::Url;

use super::{
    kinds::{self, LONGEST, choice, duration, list, size},
    paths,
    problem::Wrong,
    reader::{Parsed, Reader, Section, Value},
};
use crate::scan::engines::{
    Bounds, Kind, Otherwise,
    clamd::{self, Address},
    icap::{self, Method},
    rules,
};

const PEBIBYTE: u64 = 1 << 50;

/// Debian's.
const CLAMD_SOCKET: &str = "/run/clamav/clamd.ctl";

/// What Debian's clamd looks into: it calls what is larger clean, unless it is told not to.
const CLAMD_MAX_SIZE: u64 = 25 << 20;

/// The same of Debian's c-icap.
const ICAP_MAX_SIZE: u64 = 5 << 20;

pub(super) const OTHERWISE: [(&str, Otherwise); 2] =
    [("fail", Otherwise::Fail), ("skip", Otherwise::Skip)];

pub(super) const METHODS: [(&str, Method); 2] =
    [("respmod", Method::Respmod), ("reqmod", Method::Reqmod)];

pub(super) const PREVIEWS: [(&str, bool); 2] = [("server", true), ("off", false)];

/// As `scan.engines` lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    Script,
    Rules,
    Clamd,
    Icap,
}

const NAMES: [(&str, Name); 4] = [
    ("script", Name::Script),
    ("rules", Name::Rules),
    ("clamd", Name::Clamd),
    ("icap", Name::Icap),
];

/// `scan.engines`.
pub(super) fn names(scan: &mut Section<'_, '_>) -> Vec<Name> {
    let names = scan.read("engines", |value| {
        let names = list(choice(&NAMES))(value)?;
        let twice = NAMES.iter().any(|(_, name)| names.iter().filter(|it| *it == name).count() > 1);
        if names.is_empty() || twice {
            value.wrong("at least one engine, each once")
        } else {
            Ok(names)
        }
    });
    names.unwrap_or_else(|| {
        // Who has a script and says no more wants that.
        vec![if scan.has("script") { Name::Script } else { Name::Rules }]
    })
}

/// The script's bounds, which stand among its own keys.
pub(super) fn script_bounds(scan: &mut Section<'_, '_>) -> Bounds {
    Bounds {
        max_size: scan.read("script_max_size", size(1..=PEBIBYTE)),
        larger: scan.read("script_larger", choice(&OTHERWISE)).unwrap_or(Otherwise::Fail),
        on_failure: scan.read("script_on_failure", choice(&OTHERWISE)).unwrap_or(Otherwise::Fail),
    }
}

/// What each of them is told. None only where a problem was told.
pub(super) fn read(reader: &mut Reader<'_>, names: &[Name], script: &Bounds) -> Option<Vec<Kind>> {
    let rules = rules(&mut reader.section("rules"), names.contains(&Name::Rules));
    let clamd = clamd(&mut reader.section("clamd"));
    let icap = icap(&mut reader.section("icap"), names.contains(&Name::Icap));
    let kind = |name: &Name| match name {
        Name::Script => Some(Kind::Script(script.clone())),
        Name::Rules => rules.clone().map(Kind::Rules),
        Name::Clamd => Some(Kind::Clamd(clamd.clone())),
        Name::Icap => icap.clone().map(Kind::Icap),
    };
    names.iter().map(kind).collect()
}

fn rules(section: &mut Section<'_, '_>, listed: bool) -> Option<rules::Settings> {
    const EXPECTED: &str = "files or directories of YARA rules, unless scan.script is set or \
                            scan.engines lists others";
    if listed && !section.has("paths") {
        section.missing("paths", EXPECTED);
    }
    let read = section.read("paths", |value| {
        let paths = some(paths::path)(value)?;
        match RuleSet::load(&paths) {
            Ok(rules) => Ok((paths, rules)),
            Err(error) => {
                let because = error.source().map(|source| format!(": {source}"));
                let found = format!("{error}{}", because.unwrap_or_default());
                Err(Wrong::one(found, "YARA rules"))
            }
        }
    });
    let ignore = section.read("ignore", list(kinds::text)).unwrap_or_default();
    if let Some((_, rules)) = &read
        && let Some(unknown) = ignore.iter().find(|name| !rules.names().contains(*name))
    {
        section.conflict(
            "ignore",
            format!("found \"{unknown}\", expected names of rules in rules.paths"),
        );
    }
    let (timeout, bounds) = (time_limit(section), bounds(section, None));
    let (paths, rules): (Vec<PathBuf>, _) = read?;
    Some(rules::Settings { paths, ignore, rules, timeout, bounds })
}

fn clamd(section: &mut Section<'_, '_>) -> clamd::Settings {
    let addresses = section
        .read("addresses", some(address))
        .unwrap_or_else(|| vec![Address::Unix(CLAMD_SOCKET.into())]);
    let (timeout, bounds) = (time_limit(section), bounds(section, Some(CLAMD_MAX_SIZE)));
    clamd::Settings { addresses, timeout, bounds }
}

fn icap(section: &mut Section<'_, '_>, listed: bool) -> Option<icap::Settings> {
    const EXPECTED: &str = "a list of URLs like \"icap://127.0.0.1:1344/avscan\"";
    if listed && !section.has("urls") {
        section.missing("urls", EXPECTED);
    }
    let urls = section.read("urls", some(service));
    let method = section.read("method", choice(&METHODS)).unwrap_or(Method::Respmod);
    let preview = section.read("preview", choice(&PREVIEWS)).unwrap_or(true);
    let ca_certificates = section.read("ca_certificates", paths::file);
    let (timeout, bounds) = (time_limit(section), bounds(section, Some(ICAP_MAX_SIZE)));
    Some(icap::Settings { urls: urls?, method, preview, ca_certificates, timeout, bounds })
}

fn time_limit(section: &mut Section<'_, '_>) -> Duration {
    let timeout = section.read("timeout", duration(Duration::from_millis(1)..=LONGEST));
    timeout.unwrap_or(Duration::from_secs(60))
}

fn bounds(section: &mut Section<'_, '_>, max_size: Option<u64>) -> Bounds {
    Bounds {
        max_size: section.read("max_size", size(1..=PEBIBYTE)).or(max_size),
        larger: section.read("larger", choice(&OTHERWISE)).unwrap_or(Otherwise::Fail),
        on_failure: section.read("on_failure", choice(&OTHERWISE)).unwrap_or(Otherwise::Fail),
    }
}

/// A list that is not empty.
fn some<T>(kind: impl Fn(Value<'_>) -> Parsed<T>) -> impl Fn(Value<'_>) -> Parsed<Vec<T>> {
    let list = list(kind);
    move |value| match list(value)? {
        elements if elements.is_empty() => value.wrong("at least one"),
        elements => Ok(elements),
    }
}

/// A path has a slash in it; everything else is a host and its port.
fn address(value: Value<'_>) -> Parsed<Address> {
    const EXPECTED: &str = "a socket's path, or HOST:PORT";
    let text = kinds::text(value).or_else(|_| value.wrong(EXPECTED))?;
    if text.contains('/') {
        return paths::path(value).map(Address::Unix);
    }
    let Some((written, port)) = text.rsplit_once(':') else { return value.wrong(EXPECTED) };
    let host = match written.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(Some(inner)) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
        None if !written.contains([':', '[', ']']) => written,
        _ => return value.wrong(EXPECTED),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    match port.parse::<u16>() {
        Ok(port) if port > 0 && !host.is_empty() && host.chars().all(is_name) => {
            Ok(Address::Tcp { host: host.to_owned(), port })
        }
        _ => value.wrong(EXPECTED),
    }
}

fn service(value: Value<'_>) -> Parsed<Url> {
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
    url.map_or_else(|| value.wrong(EXPECTED), Ok)
}

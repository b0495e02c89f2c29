//! `allowed_mimetypes` and `blocked_mimetypes`, at most one of which is set. Only the syntax of the
//! names is checked here; `filetype` reports names that are never detected.

use mcs_filetype::MimeRules;

use super::{
    reader::Section,
    types,
    value::{ParseResult, RawValue},
};

const ALLOWED: &str = "allowed_mimetypes";
const BLOCKED: &str = "blocked_mimetypes";

pub(super) fn read(section: &mut Section<'_, '_>) -> MimeRules {
    let allowed = section.read(ALLOWED, names);
    let blocked = section.read(BLOCKED, names);
    if section.has(ALLOWED) && section.has(BLOCKED) {
        section.conflict(BLOCKED, format!("found beside {ALLOWED}, expected one of the two"));
    }
    match (allowed, blocked) {
        (Some(names), _) => MimeRules::only(names),
        (None, Some(names)) => MimeRules::all_but(names),
        (None, None) => MimeRules::All,
    }
}

/// Returns the key of the list in force and its names, sorted.
pub(super) fn configured_list(rules: &MimeRules) -> Option<(&'static str, Vec<&str>)> {
    let (key, names) = match rules {
        MimeRules::All => return None,
        MimeRules::Only(names) => (ALLOWED, names),
        MimeRules::AllBut(names) => (BLOCKED, names),
    };
    let mut names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    names.sort_unstable();
    Some((key, names))
}

fn names(value: RawValue<'_>) -> ParseResult<Vec<String>> {
    let names = types::list(name)(value)?;
    if names.is_empty() {
        return value.invalid("at least one type; remove the key to allow every type");
    }
    Ok(names)
}

fn name(value: RawValue<'_>) -> ParseResult<String> {
    let is_token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let parts = value.text().and_then(|name| name.split_once('/'));
    match parts {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) => {
            Ok(format!("{kind}/{subtype}").to_ascii_lowercase())
        }
        _ => value.invalid("one type without wildcards or parameters, like \"image/png\""),
    }
}

//! The two MIME lists, of which one at most is written. Whether their names are ever found is
//! `filetype`'s to say: names are only checked for their form here.

use super::{
    kinds,
    reader::{Parsed, Section, Value},
};
use crate::scan::filetype::MimeRules;

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

/// For the listing of what is in force: the key of the list, and its names in order.
pub(super) fn written(rules: &MimeRules) -> Option<(&'static str, Vec<&str>)> {
    let (key, names) = match rules {
        MimeRules::All => return None,
        MimeRules::Only(names) => (ALLOWED, names),
        MimeRules::AllBut(names) => (BLOCKED, names),
    };
    let mut names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    names.sort_unstable();
    Some((key, names))
}

fn names(value: Value<'_>) -> Parsed<Vec<String>> {
    let names = kinds::list(name)(value)?;
    if names.is_empty() {
        return value.wrong("at least one type; leave the key out to let every type pass");
    }
    Ok(names)
}

fn name(value: Value<'_>) -> Parsed<String> {
    let is_token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let parts = value.text().and_then(|name| name.split_once('/'));
    match parts {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) => {
            Ok(format!("{kind}/{subtype}").to_ascii_lowercase())
        }
        _ => value.wrong("one type without wildcards or parameters, like \"image/png\""),
    }
}

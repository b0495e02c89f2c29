//! The two MIME lists, of which one at most is written.

use super::{
    kinds,
    problem::Warning,
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
    for (key, names) in [("scan.allowed_mimetypes", &allowed), ("scan.blocked_mimetypes", &blocked)]
    {
        for name in names.iter().flatten().filter(|name| !is_known(name)) {
            section.warn(Warning::UnknownMimeType { key, name: name.clone() });
        }
    }
    match (allowed, blocked) {
        (Some(names), _) => MimeRules::Only(names),
        (None, Some(names)) => MimeRules::AllBut(names),
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

/// Whether any file is ever found to have this type. Waits for `filetype` to say.
fn is_known(_name: &str) -> bool {
    true
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

//! `allowed_mimetypes` and `blocked_mimetypes`, at most one of which is set. Only the syntax of the
//! names is checked here; `filetype` reports names that are never detected.

use std::collections::BTreeSet;

use mcs_filetype::MimeRules;

use super::prelude::*;

const ALLOWED: &str = "allowed_mimetypes";
const BLOCKED: &str = "blocked_mimetypes";

impl KeyGroup for MimeRules {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let allowed = names().read(section, ALLOWED)?;
        let blocked = names().read(section, BLOCKED)?;
        if section.has(ALLOWED) && section.has(BLOCKED) {
            section.conflict(BLOCKED, format!("found beside {ALLOWED}, expected one of the two"));
        }
        Some(match (allowed, blocked) {
            (Some(names), _) => Self::only(names),
            (None, Some(names)) => Self::all_but(names),
            (None, None) => Self::All,
        })
    }

    fn write(&self, lines: &mut Lines) {
        let sorted = |names: &BTreeSet<String>| Some(names.iter().cloned().collect());
        match self {
            Self::All => {}
            Self::Only(listed) => names().write(&sorted(listed), ALLOWED, lines),
            Self::AllBut(listed) => names().write(&sorted(listed), BLOCKED, lines),
        }
    }
}

fn names() -> Key<Option<Vec<String>>> {
    optional(
        list(name()).filter(
            |names| !names.is_empty(),
            "at least one type; remove the key to allow every type",
        ),
    )
}

fn name() -> Key<String> {
    let is_token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    Key::new(
        move |value| match value.text().and_then(|name| name.split_once('/')) {
            Some((kind, subtype)) if is_token(kind) && is_token(subtype) => {
                Ok(format!("{kind}/{subtype}").to_ascii_lowercase())
            }
            _ => value.invalid("one type without wildcards or parameters, like \"image/png\""),
        },
        |name: &String| format::quoted(name),
    )
}

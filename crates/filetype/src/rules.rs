//! The rules compiled into the program.

use std::collections::HashSet;

use pure_magic::MagicDb;

use crate::media_type::{MediaType, PLAIN_TEXT, UNKNOWN, normalize};

/// All rules but those for texts, in the format of `pure-magic`.
const ALL_RULES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filetypes"));
/// Rules that apply only to texts.
const TEXT_RULES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filetypes-texts"));

/// Types that are detected without a rule.
const BUILT_IN_TYPES: [&str; 5] =
    [UNKNOWN, PLAIN_TEXT, "application/json", "application/x-ndjson", "text/csv"];
/// Types that `pure-magic` or the corrections detect, and that no rule need contain.
const OTHER_TYPES: [&str; 4] =
    ["application/x-tar", "application/x-pie-executable", "application/encrypted", "font/sfnt"];

/// The rules compiled into the program cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("cannot load the built-in file type rules: {0}")]
pub struct LoadError(pub(crate) String);

/// Decodes all rules but those for texts.
pub(crate) fn load_all() -> Result<MagicDb, LoadError> {
    decode(ALL_RULES)
}

/// Decodes the rules for texts.
pub(crate) fn load_text_rules() -> Result<MagicDb, LoadError> {
    decode(TEXT_RULES)
}

/// Decodes rules in the format of `pure-magic`.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<MagicDb, LoadError> {
    MagicDb::deserialize(&mut bytes).map_err(|error| LoadError(error.to_string()))
}

/// Returns the normalized names of all types that can be detected with these rules.
///
/// `pure-magic` does not list the types, so they are extracted from the serialized rules.
pub(crate) fn type_names<'a>(rules: impl IntoIterator<Item = &'a MagicDb>) -> HashSet<String> {
    let mut names: HashSet<String> = BUILT_IN_TYPES
        .into_iter()
        .chain(OTHER_TYPES)
        .map(|name| normalize(MediaType::from_rule(name).as_str()))
        .collect();
    for rules in rules {
        // Cannot fail: the rules are plain data. A test checks the names.
        let json = serde_json::to_string(rules).unwrap_or_default();
        let in_rules = json.split(r#""mimetype":""#).skip(1);
        let in_rules = in_rules.filter_map(|rest| rest.split('"').next());
        names.extend(in_rules.map(|name| normalize(MediaType::from_rule(name).as_str())));
    }
    names
}

//! The rules compiled into the program.

use std::collections::HashSet;

use pure_magic::MagicDb;

use crate::media_type::{ADDED_BY_MAGIC_DB, MediaType, PLAIN_TEXT, UNKNOWN, normalize};

/// All rules, in the format of `pure-magic`.
const ALL_RULES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filetypes"));

/// Types that `pure-magic` detects without a rule.
const BUILT_IN_TYPES: [&str; 5] =
    [UNKNOWN, PLAIN_TEXT, "application/json", "application/x-ndjson", "text/csv"];
/// Types that `pure-magic` or the corrections detect, and that no rule need contain.
const OTHER_TYPES: [&str; 3] = ["application/x-tar", "application/x-pie-executable", "font/sfnt"];

/// The rules compiled into the program cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("cannot load the built-in file type rules: {0}")]
pub struct LoadError(pub(crate) String);

/// Decodes all rules.
pub(crate) fn load_all() -> Result<MagicDb, LoadError> {
    decode(ALL_RULES)
}

/// Decodes rules in the format of `pure-magic`.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<MagicDb, LoadError> {
    MagicDb::deserialize(&mut bytes).map_err(|error| LoadError(error.to_string()))
}

/// Returns the normalized names of all types that can be detected with these rules.
///
/// `pure-magic` does not list the types, so they are extracted from the serialized rules.
pub(crate) fn type_names(rules: &MagicDb) -> HashSet<String> {
    // Cannot fail: the rules are plain data. A test checks the names.
    let json = serde_json::to_string(rules).unwrap_or_default();
    let in_rules = json.split(r#""mimetype":""#).skip(1).filter_map(|rest| rest.split('"').next());
    in_rules
        .chain(BUILT_IN_TYPES)
        .chain(OTHER_TYPES)
        .filter(|name| !ADDED_BY_MAGIC_DB.contains(name))
        .map(|name| normalize(MediaType::from_rule(name).as_str()))
        .collect()
}

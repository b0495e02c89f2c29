//! The rules compiled into the program.

use pure_magic::MagicDb;

use crate::media_type::{PLAIN_TEXT, UNKNOWN};

/// All rules but those for texts, in the format of `pure-magic`.
const ALL_RULES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filetypes"));
/// Rules that apply only to texts.
const TEXT_RULES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filetypes-texts"));

/// The types in all rules, one a line.
const RULE_TYPES: &str = include_str!(concat!(env!("OUT_DIR"), "/filetypes-types"));

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

/// Returns the names of all types that can be detected, as they are in the rules.
pub(crate) fn rule_types() -> impl Iterator<Item = &'static str> {
    BUILT_IN_TYPES.into_iter().chain(OTHER_TYPES).chain(RULE_TYPES.lines())
}

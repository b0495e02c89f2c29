//! Names of types as they are in the rules.

/// Type of files of unknown format.
pub(crate) const UNKNOWN: &str = "application/octet-stream";
/// Type of texts without a more specific type.
pub(crate) const PLAIN_TEXT: &str = "text/plain";

/// The types in all rules, one a line.
const RULE_TYPES: &str = include_str!(concat!(env!("OUT_DIR"), "/filetypes-types"));

/// Types that are detected without a rule.
const BUILT_IN_TYPES: [&str; 5] =
    [UNKNOWN, PLAIN_TEXT, "application/json", "application/x-ndjson", "text/csv"];
/// Types that `pure-magic` or the corrections detect, and that no rule need contain.
const OTHER_TYPES: [&str; 4] =
    ["application/x-tar", "application/x-pie-executable", "application/encrypted", "font/sfnt"];

/// Returns the names of all types that can be detected, as they are in the rules.
pub(crate) fn rule_types() -> impl Iterator<Item = &'static str> {
    BUILT_IN_TYPES.into_iter().chain(OTHER_TYPES).chain(RULE_TYPES.lines())
}

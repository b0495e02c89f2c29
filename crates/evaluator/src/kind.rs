//! Kinds of rules: what a match means.

use boreal::{Metadata, MetadataValue, Scanner};

/// Name of the metadata with the kind.
const KEY: &str = "kind";

/// What a match of a rule means. The more severe kind is the greater one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum RuleKind {
    /// Contents that a policy does not allow: `kind = "policy"`.
    Policy,
    /// Malware: `kind = "malware"`, and rules without a kind.
    Malware,
}

/// Returns the kind of a rule of `scanner` with this metadata.
///
/// # Errors
/// The first value that is no kind. Of several valid values, the most severe one counts.
pub(crate) fn rule_kind(scanner: &Scanner, metadata: &[Metadata]) -> Result<RuleKind, String> {
    let mut kind = None;
    for data in metadata {
        if scanner.get_string_symbol(data.name) != KEY {
            continue;
        }
        let value = match data.value {
            MetadataValue::Bytes(value) => scanner.get_bytes_symbol(value),
            MetadataValue::Integer(value) => return Err(value.to_string()),
            MetadataValue::Boolean(value) => return Err(value.to_string()),
        };
        let found = match value {
            b"malware" => RuleKind::Malware,
            b"policy" => RuleKind::Policy,
            other => return Err(format!("{:?}", String::from_utf8_lossy(other))),
        };
        kind = kind.max(Some(found));
    }
    Ok(kind.unwrap_or(RuleKind::Malware))
}

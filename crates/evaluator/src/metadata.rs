//! Metadata of rules that this program understands: `kind`, what a match means, and `scope`, which objects a rule applies
//! to.

use boreal::{Metadata, MetadataValue, Scanner};

use crate::report::RuleKind;

/// Which objects a rule applies to: `scope = "outer"`, `"inner"`, or both, the default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RuleScope {
    /// The media file itself.
    Outer,
    /// Objects inside the media file.
    Inner,
    Both,
}

impl RuleScope {
    /// Returns whether a rule applies to the media file itself, or to an object in it.
    pub(crate) fn includes(self, is_media: bool) -> bool {
        match self {
            Self::Outer => is_media,
            Self::Inner => !is_media,
            Self::Both => true,
        }
    }
}

/// Returns the kind of a rule of `scanner` with this metadata: `kind = "policy"` or `"malware"`, the default. Of several
/// values, the most severe one counts.
///
/// # Errors
/// The first value that is no kind.
pub(crate) fn rule_kind(scanner: &Scanner, metadata: &[Metadata]) -> Result<RuleKind, String> {
    let mut kind = None;
    for value in values(scanner, metadata, "kind") {
        let found = match value? {
            b"malware" => RuleKind::Malware,
            b"policy" => RuleKind::Policy,
            other => return Err(quoted(other)),
        };
        kind = kind.max(Some(found));
    }
    Ok(kind.unwrap_or(RuleKind::Malware))
}

/// Returns the scope of a rule of `scanner` with this metadata. Several different values mean both.
///
/// # Errors
/// The first value that is no scope.
pub(crate) fn rule_scope(scanner: &Scanner, metadata: &[Metadata]) -> Result<RuleScope, String> {
    let mut scope = None;
    for value in values(scanner, metadata, "scope") {
        let found = match value? {
            b"outer" => RuleScope::Outer,
            b"inner" => RuleScope::Inner,
            b"both" => RuleScope::Both,
            other => return Err(quoted(other)),
        };
        scope =
            Some(if scope.is_none_or(|known| known == found) { found } else { RuleScope::Both });
    }
    Ok(scope.unwrap_or(RuleScope::Both))
}

/// Returns the texts of all metadata with this name. An item is an error if the value is not a text.
fn values<'s>(
    scanner: &'s Scanner,
    metadata: &'s [Metadata],
    name: &'static str,
) -> impl Iterator<Item = Result<&'s [u8], String>> {
    let named = metadata.iter().filter(move |data| scanner.get_string_symbol(data.name) == name);
    named.map(|data| match data.value {
        MetadataValue::Bytes(value) => Ok(scanner.get_bytes_symbol(value)),
        MetadataValue::Integer(value) => Err(value.to_string()),
        MetadataValue::Boolean(value) => Err(value.to_string()),
    })
}

fn quoted(value: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(value))
}

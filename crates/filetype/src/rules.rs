//! The rules compiled into the program.

use pure_magic::MagicDb;

/// All rules but those for texts, in the format of `pure-magic`.
const ALL_RULES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filetypes"));
/// Rules that apply only to texts.
const TEXT_RULES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filetypes-texts"));

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

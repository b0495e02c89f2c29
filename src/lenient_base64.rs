//! Decodes base64 as clients of the two earlier scanners write it.

use base64::{
    DecodeError, Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true)
    .with_encode_padding(false);

/// The standard alphabet. Encodes without padding, as the Matrix specification does.
pub(crate) const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Decodes base64 in the standard or URL-safe alphabet, with or without padding.
///
/// Decoders of clients differ, so only text is accepted that all of them decode to the same bytes or reject:
/// - A mixture of both alphabets and all other characters, including whitespace, are rejected, since some decoders
///   skip them.
/// - Padding is accepted at the end only, and not beyond the last group of four characters.
/// - Unused bits of the last character are dropped, as in `atob` (WHATWG Infra, "forgiving-base64 decode"). Stricter
///   decoders reject them; none decodes them to bytes.
///
/// The caller wraps the bytes of secrets in `Zeroizing`.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, DecodeError> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode(text)
}

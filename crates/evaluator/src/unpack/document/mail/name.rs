//! Names of attachments.

use mail_parser::{ContentType, HeaderName, HeaderValue, MessageParser};

use super::header::{HeaderReading, PartHeader};
use crate::unpack::name::EntryName;

/// Maximum length of a field that the library decodes, bytes: its time is quadratic in the number of parameters.
const MAX_FIELD: usize = 4096;

/// Maximum number of names of one part.
const MAX_NAMES: usize = 4;

/// Returns the names of a part: `filename` of `Content-Disposition` (RFC 2183), `name` of `Content-Type`, else
/// `Content-Location` (RFC 2557). Further names follow only if their extension differs, because programs choose between
/// them differently.
pub(super) fn names(header: &PartHeader<'_>, reading: HeaderReading) -> Vec<EntryName> {
    let mut names = Vec::new();
    add_parameters(&mut names, header.disposition.get(reading));
    add_parameters(&mut names, header.content_type.get(reading));
    if names.is_empty() {
        names.extend(header.location.get(reading).and_then(location));
    }
    names.truncate(MAX_NAMES);
    names.into_iter().map(EntryName::file).collect()
}

/// Adds the names in a field.
fn add_parameters(names: &mut Vec<String>, field: Option<&[u8]>) {
    let Some(field) = field else { return };
    let field = field.get(..MAX_FIELD).unwrap_or(field);
    // The library decodes RFC 2231, encoded words (RFC 2047) and charsets.
    let header = [b"Content-Disposition:", field, b"\n\n"].concat();
    let parser = MessageParser::new().header_content_type(HeaderName::ContentDisposition);
    let Some(message) = parser.parse_headers(&header) else { return };
    let values = message.parts.iter().flat_map(|part| &part.headers).map(|header| &header.value);
    let attributes =
        values.filter_map(HeaderValue::as_content_type).filter_map(ContentType::attributes);
    for attribute in attributes.flatten() {
        let is_name = ["filename", "name"].contains(&attribute.name.as_ref());
        let name = attribute.value.trim();
        if is_name
            && !name.is_empty()
            && names.iter().all(|known| extension(known) != extension(name))
        {
            names.push(name.to_owned());
        }
    }
}

/// Returns the extension in lowercase, empty if there is none.
fn extension(name: &str) -> String {
    name.rsplit_once('.').map(|(_, extension)| extension.to_lowercase()).unwrap_or_default()
}

/// Returns the path of an address, without its query.
fn location(field: &[u8]) -> Option<String> {
    let field = String::from_utf8_lossy(field.get(..MAX_FIELD).unwrap_or(field));
    let address: String = field.chars().filter(|character| !character.is_whitespace()).collect();
    let path = address.split(['?', '#']).next().unwrap_or_default();
    (!path.is_empty()).then(|| path.to_owned())
}

//! Classification of base64 runs: decides which runs are decoded.

use std::io::Read;

use memchr::memrchr2;

use super::base64::Base64Content;
use crate::unpack::document::cms;

/// Number of decoded bytes that are examined.
const PREFIX: usize = 90;

/// Length of the text before a run in which an announcement is searched, bytes.
const NEARBY: usize = 100;

/// Maximum length of a tag or of the parameters of a property, bytes.
const MAX_TAG: usize = 256;

/// The last bytes of all announcements.
pub(super) const ANNOUNCEMENT_ENDS: [[u8; 3]; 2] = [*b",:>", *b"\"'`"];

/// What ends with a colon directly before a run that is base64, in lower case.
const COLON_ANNOUNCEMENTS: [&[u8]; 3] = [b"base64", b"encoding=b", b"value=binary"];

/// Functions whose first argument is base64, in lower case.
const CALLS: [&[u8]; 2] = [b"atob", b"base64string"];

/// Ends of the names of tags whose content is base64, in lower case.
const BINARY_TAGS: [&[u8]; 3] = [b"binary-data", b"binarydata", b"bindata"];

/// Words near a run that is probably base64, in lower case.
const NEARBY_WORDS: [&[u8]; 5] = [b"base64", b"b64decode", b"encoding=b", b"atob(", b"binary"];

/// First bytes of files that are unpacked or executed.
const SIGNATURES: [&[u8]; 27] = [
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b\x08",
    b"BZh91AY&SY",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    b"%PDF-",
    b"{\\rtf",
    b"{\\rt",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"MSCF\0\0\0\0",
    b"\x7fELF",
    b"\xca\xfe\xba\xbe",
    b"\xcf\xfa\xed\xfe",
    b"L\0\0\0\x01\x14\x02\0",
    b"ITSF\x03",
    b"\xef\xbb\xbf",
    b"<?xml",
    b"<svg",
    b"#!/",
    b"LZIP\x01",
    b"ActiveMime",
    b"\x78\x9f\x3e\x22",
    b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d",
];

/// What a run decodes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RunContent {
    /// A file that is unpacked or executed.
    File,
    Text,
    /// Tokens are JSON in base64 (RFC 7519).
    Json,
    /// Certificates and keys, in DER.
    Certificate,
    Unknown,
}

pub(super) fn classify(run: &[u8]) -> RunContent {
    let mut buffer = [0; PREFIX];
    let length = Base64Content::new(run).read(&mut buffer).unwrap_or_default();
    let prefix = buffer.get(..length).unwrap_or_default();
    let has_signature = SIGNATURES.iter().any(|signature| prefix.starts_with(signature));
    if has_signature || is_program(prefix) || cms::matches(prefix) {
        return RunContent::File;
    }
    match prefix {
        [b'{', b'"', ..] => RunContent::Json,
        [0x30, 0x80..=0x84, ..] => RunContent::Certificate,
        _ if is_text(prefix) => RunContent::Text,
        _ => RunContent::Unknown,
    }
}

/// Returns whether bytes begin like a Windows program: a DOS header whose offset of the next header is below 64 KiB.
fn is_program(bytes: &[u8]) -> bool {
    matches!(bytes, [b'M', b'Z', ..] | [b'Z', b'M', ..])
        && matches!(bytes.get(..64), Some([.., 0, 0]))
}

/// Returns whether the start of a file is UTF-8 or UTF-16 text.
fn is_text(prefix: &[u8]) -> bool {
    let is_printable =
        |byte: u8| byte >= b' ' && byte != 0x7f || matches!(byte, b'\t' | b'\n' | b'\r');
    let is_utf8 = match std::str::from_utf8(prefix) {
        Ok(_) => true,
        // A character is cut.
        Err(error) => error.error_len().is_none(),
    };
    let (units, _) = prefix.as_chunks::<2>();
    is_utf8 && prefix.iter().all(|byte| is_printable(*byte))
        || units.iter().all(|[low, high]| *high == 0 && is_printable(*low))
}

/// Returns whether the end of `before` announces base64.
pub(super) fn is_announced(before: &[u8]) -> bool {
    let Some((last, text)) = before.trim_ascii_end().split_last() else { return false };
    match last {
        b',' => announces_data_url(text),
        b'>' => is_binary_tag(text),
        b':' => COLON_ANNOUNCEMENTS.iter().any(|end| ends_with_word(text, end)),
        b'"' | b'\'' | b'`' => match text {
            [text @ .., b'('] => CALLS.iter().any(|end| ends_with_word(text, end)),
            _ => false,
        },
        _ => false,
    }
}

/// Returns whether the text before a comma is the end of a `data:` URL's type.
fn announces_data_url(text: &[u8]) -> bool {
    let before = text.trim_ascii_end().split_last_chunk::<6>();
    before.is_some_and(|(before, word)| {
        word.eq_ignore_ascii_case(b"base64") && before.trim_ascii_end().ends_with(b";")
    })
}

fn ends_with_word(text: &[u8], word: &[u8]) -> bool {
    let end = text.len().checked_sub(word.len()).and_then(|start| text.get(start..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(word))
}

/// Returns whether the text before `>` ends with the start of a tag whose content is base64: of `OpenDocument` or of
/// Word (`pkg:binaryData`, `w:binData`).
fn is_binary_tag(text: &[u8]) -> bool {
    let nearby = text.get(text.len().saturating_sub(MAX_TAG)..).unwrap_or(text);
    let start = memrchr2(b'<', b'>', nearby);
    let Some([b'<', tag @ ..]) = start.and_then(|start| nearby.get(start..)) else { return false };
    let name = tag.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    BINARY_TAGS.iter().any(|end| ends_with_word(name, end))
}

/// Properties of contacts and calendars with a value in base64.
#[derive(Default)]
pub(super) struct BinaryProperties {
    /// Offset before which the text was searched, so that no byte is searched twice.
    searched: usize,
    /// Offset behind the last parameter that announces base64.
    announcement: Option<usize>,
}

impl BinaryProperties {
    /// Returns whether a property before a value says that the value is base64.
    pub(super) fn announce(&mut self, before: &[u8]) -> bool {
        if before.last() != Some(&b':') {
            return false;
        }
        let first = before.len().saturating_sub(MAX_TAG);
        let start = self.searched.max(first);
        let nearby = before.get(start..).unwrap_or_default().to_ascii_lowercase();
        for word in [&b"encoding=b"[..], b"value=binary"] {
            let position = nearby.windows(word.len()).rposition(|window| window == word);
            let found = position.map(|position| start + position + word.len());
            self.announcement = self.announcement.max(found);
        }
        self.searched = before.len();
        self.announcement.is_some_and(|end| end >= first)
    }
}

/// Returns whether words before a run suggest base64.
pub(super) fn is_announced_nearby(before: &[u8]) -> bool {
    let nearby = before.get(before.len().saturating_sub(NEARBY)..).unwrap_or(before);
    let nearby = nearby.to_ascii_lowercase();
    NEARBY_WORDS.iter().any(|word| nearby.windows(word.len()).any(|window| window == *word))
}

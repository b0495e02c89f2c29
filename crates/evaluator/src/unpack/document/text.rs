//! Files in text: base64 (RFC 4648), and `data:` URLs (RFC 2397).
//!
//! Every object but mail is searched, because a browser displays HTML with any bytes before or after it. A run of
//! base64 characters is decoded if a file in it is probable:
//!
//! - words before it announce base64 (`;base64,`, `ENCODING=b`, `<office:binary-data>`, `atob("`), or
//! - the decoded bytes begin like a file of a kind that is unpacked or executed, or
//! - the decoded bytes are text. Scripts have no magic number, and keys or checksums do not decode to text.
//!
//! So identifiers, hashes, keys and certificates cost no objects.

mod base64;
mod candidates;
mod escapes;
mod evidence;
mod reference;
mod url;
mod utf16;

use memchr::memchr;

pub(in crate::unpack) use self::base64::Base64Content;
use self::{
    base64::Base64Run,
    candidates::Candidates,
    evidence::{BinaryProperties, RunContent, classify, is_announced, is_announced_nearby},
    reference::{decode_references, has_references},
    url::{data_url, decode_percent},
    utf16::Utf16Text,
};
use crate::unpack::{
    name::EntryName,
    unpacker::{Unpacked, Unpacker, WalkEnd},
};

/// Minimum length of a run: announced, with a magic number, and with text; characters.
const MIN_ANNOUNCED: usize = candidates::MIN_LONG;
const MIN_FILE: usize = 32;
const MIN_TEXT: usize = 128;

/// Maximum number of runs with text in one object, not counting announced ones. A log with many tokens has no more
/// objects than this.
const MAX_TEXTS: u32 = 1000;

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.len() >= MIN_ANNOUNCED
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if let Some(text) = Utf16Text::detect(bytes) {
        let is_probable = text.is_probable();
        unpacker.decode(EntryName::encoding("text"), text)?;
        if is_probable {
            return Ok(());
        }
    }
    if has_references(bytes) {
        let (name, text) = (EntryName::label("text without references"), decode_references(bytes));
        // Archives contain references by chance, and are damaged without them: programs that unpack them do not decode
        // references. Text has no zeros.
        if memchr(0, bytes).is_some() {
            unpacker.decode_text_form(name, text)?;
        } else {
            unpacker.decode(name, text)?;
        }
    }
    let mut search = TextSearch {
        bytes,
        texts: 0,
        searched_for_tags: 0,
        properties: BinaryProperties::default(),
    };
    let mut candidates = Candidates::new(bytes);
    let mut position = 0;
    while let Some(offset) = candidates.next(position) {
        position = search.word(offset, unpacker)?;
    }
    Ok(())
}

struct TextSearch<'a> {
    bytes: &'a [u8],
    /// Number of runs with text.
    texts: u32,
    /// Offset before which `data:` URLs were searched for tags.
    searched_for_tags: usize,
    properties: BinaryProperties,
}

impl TextSearch<'_> {
    /// Examines the word at `start`, a candidate. Returns the offset where the search continues.
    fn word(&mut self, start: usize, unpacker: &mut Unpacker<'_>) -> Result<usize, WalkEnd> {
        let (before, rest) = self.bytes.split_at_checked(start).unwrap_or_default();
        let length = base64::word_length(rest);
        let after = rest.get(length..).unwrap_or_default();
        if after.first() == Some(&b':') && start >= self.searched_for_tags {
            let url = data_url(rest.get(..length).unwrap_or_default(), after);
            if let Some(url) = url {
                let end = start + length + url.end;
                self.searched_for_tags = end;
                if url.is_encoded {
                    let data = decode_percent(after.get(url.start..url.end).unwrap_or_default());
                    unpacker.decode(EntryName::label("data URL"), data)?;
                    return Ok(end);
                }
            }
        }
        if let Some(b'%') = before.last()
            && let Some(before) = before.get(..start - 1)
            && is_announced(before)
        {
            // The first character is encoded.
            return self.run(before, 0, true, unpacker);
        }
        let is_announced =
            is_announced(before) || (length >= MIN_ANNOUNCED && self.properties.announce(before));
        if length < MIN_ANNOUNCED && !is_announced {
            return Ok(start + length);
        }
        self.run(before, length, is_announced, unpacker)
    }

    /// Examines the run behind `before`, which starts with a word of a length. Returns the offset where the search
    /// continues.
    fn run(
        &mut self,
        before: &[u8],
        length: usize,
        is_announced: bool,
        unpacker: &mut Unpacker<'_>,
    ) -> Result<usize, WalkEnd> {
        let start = before.len();
        let rest = self.bytes.get(start..).unwrap_or_default();
        let run = Base64Run::parse(rest, length, is_announced);
        if run.characters >= MIN_ANNOUNCED && self.is_file(before, &run, is_announced) {
            unpacker.decode(EntryName::label("base64 data"), Base64Content::new(run.bytes))?;
        }
        // At least the digit after an invalid escape.
        Ok(start + run.bytes.len().max(2))
    }

    /// Returns whether a file in a run is probable.
    fn is_file(&mut self, before: &[u8], run: &Base64Run<'_>, is_announced: bool) -> bool {
        if is_announced || run.characters < MIN_FILE {
            return is_announced;
        }
        match classify(run.bytes) {
            RunContent::File => true,
            _ if run.characters < MIN_TEXT => false,
            RunContent::Text if self.texts < MAX_TEXTS => {
                self.texts += 1;
                true
            }
            RunContent::Certificate => false,
            RunContent::Text | RunContent::Json | RunContent::Unknown => {
                is_announced_nearby(before)
            }
        }
    }
}

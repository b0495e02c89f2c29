//! The structure of text, for the variables of rules: where a text starts, the first element of XML or HTML, the sections
//! of a settings file, the instructions of fields, and the code that a page runs without a click.
//!
//! Rules on these variables do not depend on byte order marks, padding, comments, references, prefixes of names and the
//! order of attributes. The variables follow from the bytes of an object alone, so that equal objects have equal values.
//! Text in UTF-16 is an object of its own, decoded, see `unpack/document/text`.

mod batch;
mod elements;
mod fields;
mod markup;
mod script;
mod settings;

use self::{
    elements::{has_known_root, write_elements},
    fields::{rtf_fields, word_fields},
    markup::{MarkupReader, MarkupToken, local_name},
};

/// Byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Length of the text that is examined as lines, bytes.
const MAX_LINES: usize = 32 << 10;

/// What rules see of the structure of an object.
#[derive(Default, Debug)]
pub(crate) struct ContentStructure {
    /// Offset of the first byte after a byte order mark, white space and other control characters.
    pub(crate) text_start: usize,
    /// Name of the first element of XML or HTML, in lower case and without prefix. Only declarations, comments and white
    /// space precede it.
    pub(crate) root: Vec<u8>,
    /// Start tags of drawings, of parts of Office documents and of forms, see [`write_elements`].
    pub(crate) elements: Vec<u8>,
    /// Sections and keys of a settings file (INI, RDP), a line each.
    pub(crate) settings: Vec<u8>,
    /// Whether most lines are commands of Windows' command line.
    pub(crate) is_batch: bool,
    /// First words of the instructions of fields in Word documents and RTF, in lower case, a line each.
    pub(crate) fields: Vec<u8>,
    /// Scripts of a page, without functions that only run after a click or a key.
    pub(crate) startup_code: Vec<u8>,
    /// Whether the structure was too large to be examined.
    pub(crate) is_limited: bool,
}

impl ContentStructure {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text_start = text_start(bytes);
        let text = bytes.get(text_start..).unwrap_or_default();
        let mut structure = Self { text_start, ..Self::default() };
        match text {
            [b'<', ..] => structure.parse_markup(text),
            [b'{', b'\\', b'r', b't', ..] => structure.fields = rtf_fields(text),
            _ => {
                let first = text.get(..MAX_LINES).unwrap_or(text);
                if !first.contains(&0) {
                    structure.settings = settings::names(first);
                    structure.is_batch = batch::is_batch(first);
                }
            }
        }
        match script::startup_code(bytes) {
            Some(code) => structure.startup_code = code,
            None => structure.is_limited = true,
        }
        structure
    }

    fn parse_markup(&mut self, text: &[u8]) {
        let Some((name, attributes)) = root(text) else { return };
        self.root = local_name(name).to_ascii_lowercase();
        if has_known_root(&self.root, attributes) {
            match write_elements(&self.root, text) {
                Some(elements) => self.elements = elements,
                None => self.is_limited = true,
            }
        }
        self.fields = word_fields(text);
    }
}

/// Returns the offset of the first byte behind a byte order mark, white space and other control characters.
fn text_start(bytes: &[u8]) -> usize {
    let is_significant = |byte: &u8| *byte > b' ';
    let skip = |start: usize| {
        let rest = bytes.get(start..).unwrap_or_default();
        rest.iter().position(is_significant).map_or(bytes.len(), |offset| start + offset)
    };
    let start = skip(0);
    match bytes.get(start..) {
        Some(rest) if rest.starts_with(MARK) => skip(start + MARK.len()),
        _ => start,
    }
}

/// Returns the name and the attributes of the first element, if nothing but declarations and white space precedes it.
fn root(text: &[u8]) -> Option<(&[u8], &[u8])> {
    MarkupReader::new(text).find_map(|token| match token {
        MarkupToken::Start { name, attributes } => Some(Some((name, attributes))),
        MarkupToken::Declaration(_) => None,
        MarkupToken::Text(text) if text.trim_ascii().is_empty() => None,
        MarkupToken::Text(_) | MarkupToken::End(_) => Some(None),
    })?
}

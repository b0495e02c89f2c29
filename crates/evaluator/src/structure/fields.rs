//! Instructions of fields in Word documents (ECMA-376, 17.16) and in RTF (RTF specification 1.9.1, `\fldinst`). Their
//! text may be divided among any number of runs.

use std::collections::BTreeSet;

use memchr::memmem;

use super::markup::{AttributeReader, MarkupReader, MarkupToken, decode_references, local_name};

/// Maximum length of the beginning of an instruction that is kept, bytes.
const MAX_INSTRUCTION: usize = 64;

/// Maximum number of fields in each other. More are read as one field.
const MAX_NESTED: usize = 1000;

/// First words of instructions.
#[derive(Default)]
struct FieldWords {
    words: BTreeSet<Vec<u8>>,
    /// Beginnings of the instructions of open fields.
    open: Vec<Vec<u8>>,
}

impl FieldWords {
    fn begin(&mut self) {
        if self.open.len() < MAX_NESTED {
            self.open.push(Vec::new());
        }
    }

    fn text(&mut self, text: &[u8]) {
        // An instruction outside of a field is read as one.
        if self.open.is_empty() {
            self.begin();
        }
        let Some(field) = self.open.last_mut() else { return };
        // Leading blanks have no effect.
        let text = if field.is_empty() { text.trim_ascii_start() } else { text };
        let room = MAX_INSTRUCTION.saturating_sub(field.len());
        field.extend(text.get(..room).unwrap_or(text));
    }

    /// Ends the instruction of the innermost field.
    fn end(&mut self) {
        let Some(field) = self.open.pop() else { return };
        let is_separator = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\\');
        let mut words = field.split(is_separator).filter(|word| !word.is_empty());
        if let Some(word) = words.next() {
            self.words.insert(word.to_ascii_lowercase());
        }
    }

    /// Returns the words, a line each. The first line is empty.
    fn into_lines(mut self) -> Vec<u8> {
        while !self.open.is_empty() {
            self.end();
        }
        let words = self.words.into_iter().flat_map(|word| [word, vec![b'\n']].concat());
        std::iter::once(b'\n').chain(words).collect()
    }
}

/// Returns the first words of the fields of a document in XML.
pub(super) fn word_fields(text: &[u8]) -> Vec<u8> {
    let mut fields = FieldWords::default();
    if memmem::find(text, b"instrText").is_none() && memmem::find(text, b"fldSimple").is_none() {
        return Vec::new();
    }
    let mut is_instruction = false;
    for token in MarkupReader::new(text) {
        match token {
            MarkupToken::Start { name, attributes } => match local_name(name) {
                b"instrText" => is_instruction = true,
                b"fldSimple" => {
                    fields.begin();
                    if let Some(instruction) = attribute(attributes, b"instr") {
                        fields.text(&decode_references(instruction));
                    }
                    fields.end();
                }
                b"fldChar" => match attribute(attributes, b"fldCharType") {
                    Some(b"begin") => fields.begin(),
                    Some(_) => fields.end(),
                    None => {}
                },
                _ => {}
            },
            MarkupToken::Text(text) if is_instruction => fields.text(&decode_references(text)),
            MarkupToken::End(_) => is_instruction = false,
            MarkupToken::Text(_) | MarkupToken::Declaration(_) => {}
        }
    }
    fields.into_lines()
}

/// Returns the value of an attribute.
fn attribute<'a>(attributes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    AttributeReader(attributes).find(|(other, _)| local_name(other) == name).map(|(_, value)| value)
}

/// Returns the first words of the fields of a document in RTF.
pub(super) fn rtf_fields(text: &[u8]) -> Vec<u8> {
    let mut fields = FieldWords::default();
    if memmem::find(text, b"\\fldinst").is_none() {
        return Vec::new();
    }
    let mut level = 0_usize;
    // Levels of the groups with open instructions.
    let mut instructions: Vec<usize> = Vec::new();
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'{' => level += 1,
            b'}' => {
                while instructions.pop_if(|instruction| *instruction >= level).is_some() {
                    fields.end();
                }
                level = level.saturating_sub(1);
            }
            b'\\' => {
                let (symbol, word, length) = control(rest);
                rest = rest.get(length..).unwrap_or_default();
                if word == b"fldinst" && instructions.len() < MAX_NESTED {
                    instructions.push(level);
                    fields.begin();
                } else if !instructions.is_empty()
                    && let Some(symbol) = symbol
                {
                    fields.text(&[symbol]);
                }
            }
            b'\r' | b'\n' => {}
            _ if instructions.is_empty() => {}
            _ => fields.text(&[*byte]),
        }
    }
    fields.into_lines()
}

/// Reads what follows a backslash. Returns the character that it stands for, or its word, and the length.
fn control(rest: &[u8]) -> (Option<u8>, &[u8], usize) {
    let letters = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let word = rest.get(..letters).unwrap_or_default();
    if !word.is_empty() {
        let after = rest.get(letters..).unwrap_or_default();
        let is_parameter = |byte: &&u8| byte.is_ascii_digit() || **byte == b'-';
        let digits = after.iter().take_while(is_parameter).count();
        let parameter = after.get(..digits).unwrap_or_default();
        let is_space = after.get(digits) == Some(&b' ');
        let character = str::from_utf8(parameter).ok().and_then(|digits| digits.parse().ok());
        let character = character.filter(|_| word == b"u");
        return (character, word, letters + digits + usize::from(is_space));
    }
    match rest {
        [b'\'', high, low, ..] => {
            let digits = [*high, *low];
            let digits = str::from_utf8(&digits).unwrap_or_default();
            (u8::from_str_radix(digits, 16).ok(), &[], 3)
        }
        [b'*' | b'\r' | b'\n', ..] => (None, &[], 1),
        [symbol, ..] => (Some(*symbol), &[], 1),
        [] => (None, &[], 0),
    }
}

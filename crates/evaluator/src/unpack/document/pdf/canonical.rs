//! Writes values in one form: names without escapes, strings as literal strings, no comments, single spaces.

use super::lexer::{PdfLexer, PdfToken, is_regular, unescape_hex, unescape_literal, unescape_name};

/// Maximum depth of arrays and dictionaries. Deeper ones are written as if they had no brackets.
const MAX_NESTING: usize = 512;

/// Where a value ended.
#[derive(Default)]
pub(super) struct ValueEnd {
    /// The offset behind `stream`, if a stream follows.
    pub(super) stream: Option<usize>,
    pub(super) is_too_deep: bool,
}

/// Appends the value at the lexer's position to `output`. Brackets in the output are balanced.
///
/// A value in a file extends to the next keyword that cannot be part of a value. A value in an object stream (`is_member`)
/// has no such keyword and is one token or one pair of brackets. `string` receives each decoded string and returns what
/// is written.
pub(super) fn write_value(
    lexer: &mut PdfLexer<'_>,
    is_member: bool,
    output: &mut Vec<u8>,
    mut string: impl FnMut(Vec<u8>) -> Vec<u8>,
) -> ValueEnd {
    let mut writer =
        ValueWriter { output, open: Vec::new(), dicts: 0, ignored: 0, end: ValueEnd::default() };
    while let Some((start, token)) = lexer.next() {
        match token {
            PdfToken::DictOpen => writer.open(true),
            PdfToken::ArrayOpen => writer.open(false),
            PdfToken::DictClose => writer.close(true),
            PdfToken::ArrayClose => writer.close(false),
            PdfToken::Name(name) => write_name(writer.separated(), &unescape_name(name)),
            PdfToken::Literal(content) => {
                write_literal(writer.separated(), &string(unescape_literal(content)));
            }
            PdfToken::Hex(content) => {
                write_literal(writer.separated(), &string(unescape_hex(content)));
            }
            PdfToken::Reference(number) => {
                writer.separated().extend_from_slice(format!("{number} 0 R").as_bytes());
            }
            PdfToken::Word(word) if is_end(word) => {
                // The next object may start within the word, such as `endobj7`.
                writer.end.stream = word.starts_with(b"stream").then_some(start + 6);
                break;
            }
            PdfToken::Word(word) => writer.separated().extend_from_slice(word),
        }
        if is_member && writer.open.is_empty() && writer.ignored == 0 {
            break;
        }
    }
    while let Some(is_dict) = writer.open.last().copied() {
        writer.close(is_dict);
    }
    writer.end
}

fn is_end(word: &[u8]) -> bool {
    word == b"obj"
        || [b"endobj".as_slice(), b"stream", b"endstream", b"xref", b"trailer", b"startxref"]
            .iter()
            .any(|keyword| word.starts_with(keyword))
}

struct ValueWriter<'o> {
    output: &'o mut Vec<u8>,
    /// For each open container, whether it is a dictionary.
    open: Vec<bool>,
    /// Number of open dictionaries.
    dicts: usize,
    /// Number of open containers that are too deep.
    ignored: usize,
    end: ValueEnd,
}

impl ValueWriter<'_> {
    fn separated(&mut self) -> &mut Vec<u8> {
        separate(self.output);
        self.output
    }

    fn open(&mut self, is_dict: bool) {
        if self.open.len() >= MAX_NESTING {
            self.ignored += 1;
            self.end.is_too_deep = true;
            return;
        }
        let bracket: &[u8] = if is_dict { b"<<" } else { b"[" };
        self.separated().extend_from_slice(bracket);
        self.open.push(is_dict);
        self.dicts += usize::from(is_dict);
    }

    /// Closes a container. One of the other kind inside it is closed too, if it was left open.
    fn close(&mut self, is_dict: bool) {
        if self.ignored > 0 {
            self.ignored -= 1;
            return;
        }
        if is_dict && self.dicts == 0 || !is_dict && self.open.last() != Some(&false) {
            return;
        }
        while let Some(last) = self.open.pop() {
            self.output.extend_from_slice(if last { b">>" } else { b"]" });
            self.dicts -= usize::from(last);
            if last == is_dict {
                return;
            }
        }
    }
}

/// Appends a space, unless it is not needed.
pub(super) fn separate(output: &mut Vec<u8>) {
    if !matches!(output.last(), None | Some(b'[' | b' ' | b'\n')) && !output.ends_with(b"<<") {
        output.push(b' ');
    }
}

/// Appends a name. Only bytes that would end it are escaped.
pub(super) fn write_name(output: &mut Vec<u8>, name: &[u8]) {
    output.push(b'/');
    for byte in name {
        if is_regular(*byte) && *byte != b'#' {
            output.push(*byte);
        } else {
            output.extend_from_slice(format!("#{byte:02x}").as_bytes());
        }
    }
}

/// Appends a literal string.
pub(super) fn write_literal(output: &mut Vec<u8>, string: &[u8]) {
    output.push(b'(');
    for byte in string {
        match byte {
            b'(' | b')' | b'\\' => output.extend([b'\\', *byte]),
            b'\r' => output.extend(b"\\r"),
            _ => output.push(*byte),
        }
    }
    output.push(b')');
}

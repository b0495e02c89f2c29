//! Code in one form.

use super::lexer::ScriptToken;

/// Maximum length of a string that is written, bytes.
const MAX_TEXT: usize = 200;

/// Number of numbers in a row that are written.
const MAX_NUMBERS: usize = 8;

/// Writes tokens.
#[derive(Default)]
pub(super) struct CodeWriter {
    /// Number of numbers in a row.
    numbers: usize,
}

impl CodeWriter {
    /// Appends a token. `is_continued` if it follows a plus sign: strings that are put together are one.
    pub(super) fn write(
        &mut self,
        token: &ScriptToken<'_>,
        is_continued: bool,
        code: &mut Vec<u8>,
    ) {
        let is_number = matches!(token, ScriptToken::Number(_));
        if is_number || *token != ScriptToken::Symbol(b',') {
            self.numbers = if is_number { self.numbers + 1 } else { 0 };
        }
        if self.numbers > MAX_NUMBERS {
            return;
        }
        match token {
            ScriptToken::Word(word) | ScriptToken::Number(word) => {
                if code
                    .last()
                    .is_some_and(|last| last.is_ascii_alphanumeric() || matches!(last, b'_' | b'$'))
                {
                    code.push(b' ');
                }
                code.extend(*word);
            }
            ScriptToken::Text(text) => {
                if is_continued && code.ends_with(b"\"+") {
                    code.truncate(code.len() - 2);
                } else {
                    code.push(b'"');
                }
                let text = text.get(..MAX_TEXT).unwrap_or(text);
                code.extend(text.iter().filter(|byte| !matches!(byte, b'"' | b'\n' | b'\r')));
                code.push(b'"');
            }
            ScriptToken::Arrow => code.extend(b"=>"),
            ScriptToken::Symbol(symbol) => code.push(*symbol),
        }
    }
}

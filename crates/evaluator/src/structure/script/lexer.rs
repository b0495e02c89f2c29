//! Tokens of JavaScript (ECMA-262, clause 12).

/// Keywords behind which a slash begins a regular expression.
const BEFORE_EXPRESSION: [&[u8]; 13] = [
    b"await",
    b"case",
    b"delete",
    b"do",
    b"else",
    b"in",
    b"instanceof",
    b"new",
    b"of",
    b"return",
    b"throw",
    b"typeof",
    b"yield",
];

/// A token. White space, comments and regular expressions are omitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ScriptToken<'a> {
    /// Identifier or keyword.
    Word(&'a [u8]),
    /// Content of a string, without escapes, or a part of a template.
    Text(Vec<u8>),
    Number(&'a [u8]),
    Arrow,
    Symbol(u8),
}

/// What is behind the last token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SlashMeaning {
    Division,
    Expression,
}

/// Reads the tokens of a script.
pub(super) struct ScriptLexer<'a> {
    rest: &'a [u8],
    slash: SlashMeaning,
    /// For each open parenthesis, whether a statement follows it, as behind `if`.
    parentheses: Vec<bool>,
    is_control: bool,
    /// For each open brace, whether it is an expression in a template.
    braces: Vec<bool>,
    /// Length of the rest at the end of a line in which a regular expression does not end. Before it, slashes are
    /// divisions, because a search for each would take quadratic time.
    divisions: usize,
}

impl<'a> ScriptLexer<'a> {
    pub(super) fn new(script: &'a [u8]) -> Self {
        Self {
            rest: script,
            slash: SlashMeaning::Expression,
            parentheses: Vec::new(),
            is_control: false,
            braces: Vec::new(),
            divisions: usize::MAX,
        }
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Skips white space and comments.
    fn skip_blank(&mut self) {
        loop {
            let blank = self
                .rest
                .iter()
                .take_while(|byte| byte.is_ascii_whitespace() || **byte == 0)
                .count();
            self.take(blank);
            let length = match self.rest {
                [b'/', b'/', rest @ ..] => {
                    rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'))
                }
                [b'/', b'*', rest @ ..] => memchr::memmem::find(rest, b"*/").map(|end| end + 4),
                // Behind it, browsers ignore the line.
                [b'<', b'!', b'-', b'-', rest @ ..] => rest.iter().position(|byte| *byte == b'\n'),
                _ if blank == 0 => return,
                _ => continue,
            };
            self.take(length.unwrap_or(self.rest.len()).max(1));
        }
    }

    fn word(&mut self) -> ScriptToken<'a> {
        let is_part =
            |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
        let length = self.rest.iter().take_while(is_part).count();
        let word = self.take(length);
        let is_before = BEFORE_EXPRESSION.binary_search(&word).is_ok();
        self.slash = if is_before { SlashMeaning::Expression } else { SlashMeaning::Division };
        self.is_control = matches!(word, b"if" | b"while" | b"for" | b"with");
        ScriptToken::Word(word)
    }

    fn number(&mut self) -> ScriptToken<'a> {
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
        let length = self.rest.iter().take_while(is_part).count();
        self.slash = SlashMeaning::Division;
        ScriptToken::Number(self.take(length))
    }

    /// Reads a string behind its quotation mark.
    fn string(&mut self, quote: u8) -> ScriptToken<'a> {
        let mut content = Vec::new();
        while let Some((byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'\\' => self.escape(&mut content),
                byte if *byte == quote => break,
                // A string ends at its line.
                b'\n' | b'\r' if quote != b'`' => break,
                b'$' if quote == b'`' && rest.starts_with(b"{") => {
                    self.take(1);
                    self.braces.push(true);
                    self.slash = SlashMeaning::Expression;
                    return ScriptToken::Text(content);
                }
                _ => content.push(*byte),
            }
        }
        self.slash = SlashMeaning::Division;
        ScriptToken::Text(content)
    }

    /// Reads an escape behind its backslash.
    fn escape(&mut self, content: &mut Vec<u8>) {
        let digits = match self.rest {
            [b'x', ..] => self.rest.get(1..3),
            [b'u', b'{', rest @ ..] => {
                rest.iter().take(8).position(|byte| *byte == b'}').and_then(|end| rest.get(..end))
            }
            [b'u', ..] => self.rest.get(1..5),
            _ => None,
        };
        let digits = digits.and_then(|digits| str::from_utf8(digits).ok());
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if let (Some(digits), Some(character)) = (digits, number.and_then(char::from_u32)) {
            let braces = if self.rest.get(1) == Some(&b'{') { 2 } else { 0 };
            self.take(1 + digits.len() + braces);
            content.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
            return;
        }
        match self.take(1) {
            [b'n'] => content.push(b'\n'),
            [b'\n' | b'\r'] | [] => {}
            other => content.extend(other),
        }
    }

    /// Skips a regular expression. Returns `false` if the slash is a division.
    fn regular_expression(&mut self) -> bool {
        if self.rest.len() > self.divisions {
            return false;
        }
        self.divisions = usize::MAX;
        let mut is_class = false;
        let mut position = 1;
        while let Some(byte) = self.rest.get(position) {
            match byte {
                b'\\' => position += 1,
                b'[' => is_class = true,
                b']' => is_class = false,
                b'/' if !is_class => {
                    self.take(position + 1);
                    let flags =
                        self.rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
                    self.take(flags);
                    self.slash = SlashMeaning::Division;
                    return true;
                }
                b'\n' | b'\r' => break,
                _ => {}
            }
            position += 1;
        }
        self.divisions = self.rest.len().saturating_sub(position);
        false
    }

    fn symbol(&mut self, symbol: u8) -> ScriptToken<'a> {
        self.take(1);
        self.slash = SlashMeaning::Expression;
        match symbol {
            b'(' => self.parentheses.push(std::mem::take(&mut self.is_control)),
            b')' if self.parentheses.pop() != Some(true) => self.slash = SlashMeaning::Division,
            b']' => self.slash = SlashMeaning::Division,
            b'{' => self.braces.push(false),
            b'}' if self.braces.pop() == Some(true) => return self.string(b'`'),
            b'"' | b'\'' | b'`' => return self.string(symbol),
            b'=' if self.rest.starts_with(b">") => {
                self.take(1);
                return ScriptToken::Arrow;
            }
            _ => {}
        }
        self.is_control = false;
        ScriptToken::Symbol(symbol)
    }
}

impl<'a> Iterator for ScriptLexer<'a> {
    type Item = ScriptToken<'a>;

    fn next(&mut self) -> Option<ScriptToken<'a>> {
        loop {
            self.skip_blank();
            let first = *self.rest.first()?;
            return Some(match first {
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | 0x80.. => self.word(),
                b'0'..=b'9' => self.number(),
                b'/' if self.slash == SlashMeaning::Expression && self.regular_expression() => {
                    continue;
                }
                _ => self.symbol(first),
            });
        }
    }
}

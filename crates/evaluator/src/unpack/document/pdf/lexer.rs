//! Tokens of PDF, ISO 32000-2, 7.2 and 7.3. Unbalanced or unknown bytes are skipped, as viewers do.

/// A token. Strings and names are without delimiters, and with their escapes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PdfToken<'a> {
    DictOpen,
    DictClose,
    ArrayOpen,
    ArrayClose,
    Name(&'a [u8]),
    Literal(&'a [u8]),
    Hex(&'a [u8]),
    Reference(u32),
    /// Number or keyword.
    Word(&'a [u8]),
}

/// Splits bytes into tokens. Each token takes time proportional to its length.
#[derive(Clone)]
pub(super) struct PdfLexer<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) position: usize,
}

impl<'a> PdfLexer<'a> {
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    fn peek(&self, distance: usize) -> Option<u8> {
        self.bytes.get(self.position.checked_add(distance)?).copied()
    }

    fn skip_while(&mut self, condition: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&condition) {
            self.position += 1;
        }
    }

    /// Skips white space and comments.
    pub(super) fn skip_blank(&mut self) {
        loop {
            self.skip_while(is_white);
            if self.peek(0) != Some(b'%') {
                return;
            }
            self.skip_while(|byte| byte != b'\n' && byte != b'\r');
        }
    }

    /// Returns the next token and where it starts.
    pub(super) fn next(&mut self) -> Option<(usize, PdfToken<'a>)> {
        loop {
            self.skip_blank();
            let start = self.position;
            let first = self.peek(0)?;
            let token = match (first, self.peek(1)) {
                (b'<', Some(b'<')) => self.take(2, PdfToken::DictOpen),
                (b'>', Some(b'>')) => self.take(2, PdfToken::DictClose),
                (b'[', _) => self.take(1, PdfToken::ArrayOpen),
                (b']', _) => self.take(1, PdfToken::ArrayClose),
                (b'<', _) => PdfToken::Hex(self.hex()),
                (b'(', _) => PdfToken::Literal(self.literal()),
                (b'/', _) => {
                    self.position += 1;
                    PdfToken::Name(self.regular())
                }
                _ if is_regular(first) => self.word(first),
                _ => {
                    self.position += 1;
                    continue;
                }
            };
            return Some((start, token));
        }
    }

    fn take(&mut self, length: usize, token: PdfToken<'a>) -> PdfToken<'a> {
        self.position += length;
        token
    }

    fn slice(&self, start: usize, end: usize) -> &'a [u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    fn regular(&mut self) -> &'a [u8] {
        let start = self.position;
        self.skip_while(is_regular);
        self.slice(start, self.position)
    }

    fn word(&mut self, first: u8) -> PdfToken<'a> {
        if first.is_ascii_digit() || first == b'+' {
            let mut ahead = self.clone();
            if let Some(number) = ahead.reference() {
                self.position = ahead.position;
                return PdfToken::Reference(number);
            }
        }
        PdfToken::Word(self.regular())
    }

    /// Reads `N G R`.
    fn reference(&mut self) -> Option<u32> {
        let number = parse_integer(self.regular())?;
        self.skip_blank();
        if !self.peek(0)?.is_ascii_digit() {
            return None;
        }
        let generation = self.position;
        self.skip_while(|byte| byte.is_ascii_digit());
        if self.position == generation {
            return None;
        }
        self.skip_blank();
        if self.peek(0)? != b'R' || self.peek(1).is_some_and(is_regular) {
            return None;
        }
        self.position += 1;
        Some(number)
    }

    /// Reads the content of a hexadecimal string, up to `>` or the end.
    fn hex(&mut self) -> &'a [u8] {
        self.position += 1;
        let start = self.position;
        self.skip_while(|byte| byte != b'>');
        let end = self.position;
        self.position += 1;
        self.slice(start, end)
    }

    /// Reads the content of a literal string, up to the closing parenthesis or the end.
    fn literal(&mut self) -> &'a [u8] {
        self.position += 1;
        let start = self.position;
        let mut depth = 1_usize;
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\\' => self.position += 1,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            self.position += 1;
        }
        let end = self.position.min(self.bytes.len());
        self.position = end.saturating_add(1);
        self.slice(start, end)
    }
}

pub(super) fn is_white(byte: u8) -> bool {
    matches!(byte, 0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

pub(super) fn is_regular(byte: u8) -> bool {
    !is_white(byte)
        && !matches!(byte, b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'/' | b'%')
}

/// Parses an integer without a minus sign. A fraction of zero is accepted, as viewers do.
pub(super) fn parse_integer(word: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(word).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte == b'0') {
        return None;
    }
    whole.parse().ok()
}

/// Resolves `#xx` in a name.
pub(super) fn unescape_name(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        let escape = match (first, tail) {
            (b'#', [high, low, ..]) => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        if let Some((high, low)) = escape {
            decoded.push(high << 4 | low);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            decoded.push(first);
            rest = tail;
        }
    }
    decoded
}

pub(super) fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Decodes the content of a hexadecimal string. Other characters are ignored.
pub(super) fn unescape_hex(content: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(content.len() / 2 + 1);
    let mut high = None;
    for digit in content.iter().filter_map(|byte| hex_digit(*byte)) {
        match high.take() {
            Some(high) => decoded.push(high << 4 | digit),
            None => high = Some(digit),
        }
    }
    decoded.extend(high.map(|high| high << 4));
    decoded
}

/// Resolves the escapes of a literal string, 7.3.4.2.
pub(super) fn unescape_literal(content: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(content.len());
    let mut bytes = content.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => decoded.push(b'\n'),
                Some(b'r') => decoded.push(b'\r'),
                Some(b't') => decoded.push(b'\t'),
                Some(b'b') => decoded.push(8),
                Some(b'f') => decoded.push(12),
                Some(b'\n') | None => {}
                Some(b'\r') => _ = bytes.next_if_eq(&b'\n'),
                Some(digit @ b'0'..=b'7') => {
                    let mut code = u32::from(digit - b'0');
                    for _ in 0..2 {
                        let Some(digit) = bytes.next_if(|byte| matches!(byte, b'0'..=b'7')) else {
                            break;
                        };
                        code = code * 8 + u32::from(digit - b'0');
                    }
                    // Overflow beyond one byte is ignored.
                    decoded.push(code.to_le_bytes()[0]);
                }
                Some(other) => decoded.push(other),
            },
            // All ends of line count as a line feed.
            b'\r' => {
                _ = bytes.next_if_eq(&b'\n');
                decoded.push(b'\n');
            }
            _ => decoded.push(byte),
        }
    }
    decoded
}

//! Rewrites the regular expressions of the rules, so that `pure-magic` finds what libmagic finds.
//!
//! libmagic (`softmagic.c`) searches a copy of the file's part that ends with a NUL, with the POSIX functions and the
//! flags `REG_EXTENDED | REG_NEWLINE`. `pure-magic` compiles the same expression for the crate `regex`:
//!
//! - A search stops at the first NUL. Without that, `.*\.png` in a rule for the first name in a ZIP archive finds the
//!   name of any later entry.
//! - `.` and `[^…]` do not match a line feed, and `^` and `$` match at each line.
//! - A backslash within brackets is an ordinary character.
//! - `/c` ignores case; `pure-magic` ignores the flag.
//! - `/l` limits the lines; `pure-magic` does so only if it searches each line by itself, where no expression that
//!   spans lines can match. Rules for texts are therefore evaluated as if the text were binary (see `LimitedReader`).
//! - A negated expression matches where there is no match; in `pure-magic` it always matches.

use std::{collections::BTreeMap, error::Error, fmt::Write};

use serde::{Deserialize, Serialize};

use super::{RawJson, RuleNode};

/// A test with a regular expression, in the engine's JSON serialization.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegexTest {
    re: Pattern,
    /// Maximum number of bytes, or of lines with [`LINE_LIMIT`].
    length: Option<u32>,
    mods: u8,
    str_mods: RawJson,
    non_magic_len: RawJson,
    binary: RawJson,
    cmp_op: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern {
    s: String,
    captures_len: RawJson,
}

// Modifiers.
const IGNORE_CASE: u8 = 1 << 0;
const START_OFFSET: u8 = 1 << 1;
const LINE_LIMIT: u8 = 1 << 2;

/// Prefix that `pure-magic` adds to each expression.
const PREFIX: &str = "(?-u)";

/// Negated expressions, and expressions that match where these do not.
const NEGATED: [(&str, &str); 2] = [
    // Each of the first 100 lines begins with a character that FORTRAN allows there.
    (
        "^[^Cc \t].*$",
        r"\A(?:(?:(?:[Cc \t][^\n]*)?\n){100}|(?:(?:[Cc \t][^\n]*)?\n){0,99}(?:[Cc \t][^\n]*)?\z)",
    ),
    ("^(lh1|lh5)", r"\A(?:[^l]|l[^h]|lh[^15])"),
];

impl RuleNode {
    /// Rewrites the expressions of this node and its descendants. `is_text`: the rule is evaluated only for texts, which
    /// contain no NUL.
    pub(super) fn rewrite_regexes(&mut self, is_text: bool) -> Result<(), Box<dyn Error>> {
        if self.is_test("Regex") {
            let mut tests: BTreeMap<String, RegexTest> =
                serde_json::from_str(self.entry.test.get())?;
            for test in tests.values_mut() {
                test.rewrite(is_text)?;
            }
            self.entry.test = serde_json::value::to_raw_value(&tests)?;
        }
        self.children.iter_mut().try_for_each(|child| child.rewrite_regexes(is_text))
    }
}

impl RegexTest {
    fn rewrite(&mut self, is_text: bool) -> Result<(), Box<dyn Error>> {
        let pattern = self.re.s.strip_prefix(PREFIX).ok_or("unknown prefix of an expression")?;
        if self.cmp_op != "Eq" {
            let negated = NEGATED.iter().find(|(negated, _)| *negated == pattern);
            let (_, complement) =
                negated.ok_or_else(|| format!("negated expression: {pattern}"))?;
            self.re.s = format!("(?-u){complement}");
            "Eq".clone_into(&mut self.cmp_op);
            return Ok(());
        }
        let flags = if self.mods & IGNORE_CASE == 0 { "(?m-u)" } else { "(?mi-u)" };
        let pattern = posix_to_regex(pattern)?;
        // Children may refer to where the match starts: then, nothing can be put before it.
        let is_prefixed = self.mods & START_OFFSET == 0;
        // libmagic ends its copy of the bytes with a NUL in place of the last byte.
        let is_line_limit = self.mods & LINE_LIMIT != 0;
        self.length =
            self.length.map(|len| if is_line_limit { len } else { len.saturating_sub(1) });
        let lines = self.length.filter(|_| is_line_limit);
        self.re.s = match lines {
            Some(lines) if is_prefixed => {
                let rest = lines.saturating_sub(1);
                format!(r"{flags}\A(?:[^\n\x00]*\n){{0,{rest}}}?[^\n\x00]*?(?:{pattern})")
            }
            None if is_prefixed && !is_text => format!(r"{flags}\A[^\x00]*?(?:{pattern})"),
            _ => format!("{flags}{pattern}"),
        };
        Ok(())
    }
}

/// Converts a POSIX extended regular expression to the syntax of the crate `regex`.
fn posix_to_regex(pattern: &str) -> Result<String, Box<dyn Error>> {
    let mut converted = String::new();
    // The functions read the expression up to a NUL, too.
    let mut rest = pattern.split('\0').next().unwrap_or_default();
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '.' => {
                converted.push_str(r"[^\n\x00]");
                1
            }
            '\\' => {
                let len = 1 + rest.chars().nth(1).ok_or("incomplete escape")?.len_utf8();
                converted.push_str(&rest[..len]);
                len
            }
            '[' => {
                let len = bracket_len(rest).ok_or_else(|| format!("unclosed bracket: {rest}"))?;
                convert_bracket(&rest[1..len - 1], &mut converted)?;
                len
            }
            c => {
                converted.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    Ok(converted)
}

/// Returns the length of the bracket expression at the beginning of `pattern`.
fn bracket_len(pattern: &str) -> Option<usize> {
    // A closing bracket in the first place, and one that ends a class, is part of the expression.
    let start = if pattern.starts_with("[^") { 2 } else { 1 };
    let mut at = if pattern[start..].starts_with(']') { start + 1 } else { start };
    loop {
        let rest = &pattern[at..];
        if rest.starts_with("[:") {
            at += rest.find(":]")? + 2;
        } else if rest.starts_with(']') {
            return Some(at + 1);
        } else {
            at += rest.chars().next()?.len_utf8();
        }
    }
}

/// Appends a bracket expression. `content` is what is between the brackets.
fn convert_bracket(content: &str, converted: &mut String) -> Result<(), Box<dyn Error>> {
    let (start, mut rest) = match content.strip_prefix('^') {
        Some(rest) => (r"[^\n\x00", rest),
        None => ("[", content),
    };
    converted.push_str(start);
    // `pure-magic` parses `\f` as the letter `f`, not as a form feed.
    let is_whitespace = rest == " \tf\r\n";
    while let Some(c) = rest.chars().next() {
        let len = if rest.starts_with("[:") {
            rest.find(":]").ok_or("unclosed class")? + 2
        } else {
            c.len_utf8()
        };
        // Bytes outside ASCII are the only escapes that `pure-magic` leaves.
        let is_byte = rest.starts_with(r"\x")
            && rest
                .get(2..4)
                .and_then(|hex| u8::from_str_radix(hex, 16).ok())
                .is_some_and(|b| b > 127);
        if is_byte {
            converted.push_str(&rest[..4]);
            rest = &rest[4..];
            continue;
        }
        match c {
            'f' if is_whitespace => converted.push_str(r"\x0c"),
            '[' if len > 1 => converted.push_str(&rest[..len]),
            '\\' | '[' | ']' | '&' | '~' | '^' => write!(converted, r"\{c}")?,
            '-' if rest.len() == 1 => converted.push_str(r"\-"),
            c => converted.push(c),
        }
        rest = &rest[len..];
    }
    converted.push(']');
    Ok(())
}

//! The file with the tokens of operators: one token, or lines of a name and a token. No part of a token is in an error.

use std::path::Path;

use zeroize::Zeroizing;

use crate::token_file::{self, FileAccess, MAX_LENGTH, MIN_LENGTH, TokenError};

/// Key of the configuration.
pub(super) const KEY: &str = "admin.token_path";

/// Name of the token in a file with one token and no name.
const DEFAULT_NAME: &str = "admin";

/// Maximum number of tokens.
const MAX_TOKENS: usize = 32;

/// Maximum length of a name, bytes.
const MAX_NAME: usize = 32;

/// Maximum size of the file, bytes.
const MAX_FILE: usize = MAX_TOKENS * (MAX_NAME + MAX_LENGTH + 3);

/// What a line must contain.
const EXPECTED: &str = "expected NAME TOKEN";

/// A token and its name.
pub(super) struct NamedToken {
    pub(super) name: String,
    pub(super) token: Zeroizing<String>,
}

/// Reads the tokens in the order of the file, at least one. Blocks.
///
/// # Errors
/// If the file cannot be read, others can use it and `access` does not permit that, or it contains anything else.
pub(super) fn read(path: &Path, access: FileAccess) -> Result<Vec<NamedToken>, TokenError> {
    let text = token_file::read(path, KEY, access, MAX_FILE)?;
    parse(&text).map_err(|problem| match problem {
        ListProblem::File(found) => TokenError::Content { path: path.to_owned(), key: KEY, found },
        ListProblem::Line(line, problem) => {
            TokenError::Line { path: path.to_owned(), key: KEY, line, problem }
        }
    })
}

/// Why a text is no list of tokens.
#[derive(Debug)]
enum ListProblem {
    /// What it contains instead.
    File(String),
    /// Number of a line, and what is wrong there.
    Line(usize, String),
}

fn parse(text: &[u8]) -> Result<Vec<NamedToken>, ListProblem> {
    if text.len() > MAX_FILE {
        return Err(ListProblem::File(format!("more than {MAX_FILE} bytes")));
    }
    if !text.trim_ascii().iter().any(u8::is_ascii_whitespace) {
        let token = token_file::parse(text).map_err(ListProblem::File)?;
        return Ok(vec![NamedToken { name: DEFAULT_NAME.to_owned(), token }]);
    }
    let mut tokens: Vec<(usize, NamedToken)> = Vec::new();
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let number = index + 1;
        let wrong = |problem| ListProblem::Line(number, problem);
        if tokens.len() == MAX_TOKENS {
            return Err(wrong(format!("more than {MAX_TOKENS} tokens")));
        }
        let named = parse_line(line).map_err(wrong)?;
        for (other, earlier) in &tokens {
            if earlier.name == named.name {
                return Err(wrong(format!("has the name of line {other}")));
            }
            if *earlier.token == *named.token {
                return Err(wrong(format!("has the token of line {other}")));
            }
        }
        tokens.push((number, named));
    }
    Ok(tokens.into_iter().map(|(_, named)| named).collect())
}

fn parse_line(line: &[u8]) -> Result<NamedToken, String> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let (name, token) = match (words.next(), words.next(), words.next()) {
        (Some(name), Some(token), None) => (name, token),
        (_, None, _) => return Err(format!("contains one word, {EXPECTED}")),
        _ => return Err(format!("contains more than two words, {EXPECTED}")),
    };
    let is_name = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if name.len() > MAX_NAME || !name.iter().all(is_name) {
        return Err(format!(
            "the name is not 1 to {MAX_NAME} of the characters a-z, 0-9, '.', '_' and '-', {EXPECTED}"
        ));
    }
    let token = token_file::parse(token).map_err(|found| {
        format!(
            "the token consists of {found}, expected at least {MIN_LENGTH} visible ASCII characters \
             (openssl rand -hex 32)"
        )
    })?;
    Ok(NamedToken { name: String::from_utf8_lossy(name).into_owned(), token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, String)> {
        let tokens = parse(text.as_bytes()).unwrap();
        tokens.into_iter().map(|named| (named.name, named.token.to_string())).collect()
    }

    fn pair(name: &str, token: &str) -> (String, String) {
        (name.to_owned(), token.to_owned())
    }

    #[test]
    fn one_token_needs_no_name() {
        for text in ["0123456789abcdef", "0123456789abcdef\n", "\n  0123456789abcdef \r\n\n"] {
            assert_eq!(names(text), [pair("admin", "0123456789abcdef")], "{text:?}");
        }
    }

    #[test]
    fn tokens_have_names() {
        let text = "a.b_c-9 0123456789abcdef\r\n\n\tbob \t fedcba9876543210\n";
        let expected = [pair("a.b_c-9", "0123456789abcdef"), pair("bob", "fedcba9876543210")];
        assert_eq!(names(text), expected);
        assert_eq!(names("eve 0123456789abcdef"), [pair("eve", "0123456789abcdef")]);
        let longest = format!("{} {}\n", "n".repeat(32), "t".repeat(1024));
        assert_eq!(names(&longest)[0].0.len(), 32);
    }

    #[test]
    fn largest_list_is_accepted_and_a_larger_one_rejected() {
        let line = |number: usize| format!("{number:032} {number:01024}\r\n");
        let text: String = (0..32).map(line).collect();
        assert_eq!(names(&text).len(), 32);
        let error = parse((text + "x 0123456789abcdef").as_bytes()).err().unwrap();
        assert!(matches!(error, ListProblem::File(found) if found.contains("bytes")));
        let short = |number: usize| format!("n{number} 0123456789abcde{number}\n");
        let error = parse((0..33).map(short).collect::<String>().as_bytes()).err().unwrap();
        let ListProblem::Line(33, problem) = error else { panic!("{error:?}") };
        assert_eq!(problem, "more than 32 tokens");
    }

    #[test]
    fn wrong_lines_are_named_and_not_quoted() {
        const GOOD: &str = "alice 0123456789abcdef\n";
        for (line, expected) in [
            ("SECRETSECRETSECRET", "contains one word, expected NAME TOKEN"),
            ("bob SECRETSECRETSECRET word", "contains more than two words"),
            ("Bob SECRETSECRETSECRET", "the name is not 1 to 32 of the characters a-z"),
            ("bob: SECRETSECRETSECRET", "the name is not"),
            ("SECRETSECRETSECRET bob", "the name is not"),
            ("bob SECRET", "the token consists of 6 characters"),
            ("bob SECRETSECRETSECR\u{e4}T", "other characters"),
            ("alice SECRETSECRETSECRET", "has the name of line 1"),
            ("bob 0123456789abcdef", "has the token of line 1"),
            (&format!("{} SECRETSECRETSECRET", "n".repeat(33)), "the name is not"),
            (&format!("bob {}", "SECRET".repeat(200)), "more than 1024 bytes"),
        ] {
            let error = parse(format!("{GOOD}\n{line}\n").as_bytes()).err().unwrap();
            let ListProblem::Line(number, problem) = error else { panic!("{line}: {error:?}") };
            assert_eq!(number, 3, "{line}");
            assert!(problem.contains(expected), "{line}: {problem}");
            assert!(!problem.contains("SECRET") && !problem.contains("0123456789"), "{problem}");
        }
    }
}

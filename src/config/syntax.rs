//! Explains syntax errors of the TOML parser to operators. Nothing of the file is quoted, since it may contain secrets.

/// Returns the problem with a file in another format.
pub(super) fn other_format(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim);
    let first = lines.into_iter().find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let found = if first.starts_with('{') {
        "JSON"
    } else if first == "---" || first.split_once(':').is_some_and(|(key, _)| is_word(key)) {
        "YAML"
    } else {
        return None;
    };
    Some(format!(
        "found {found}, expected TOML: sections like [web], and below them lines like port = 8080"
    ))
}

/// Beginnings of errors of the parser, and what to tell operators.
const EXPLAINED: [(&str, &str); 9] = [
    (
        "string values must be quoted",
        "found a value without quotes, expected a text in quotes, a number, true or false",
    ),
    (
        "invalid basic string",
        "found a text without its closing quotation mark, expected \" in the same line",
    ),
    (
        "missing escaped value",
        "found a backslash in double quotes, expected two, or the text in single quotes",
    ),
    ("key with no value", "found a key without a value, expected KEY = VALUE"),
    ("unclosed table", "found a section without closing bracket, expected a line like [web]"),
    (
        "missing comma between array elements",
        "found no comma after an element of a list, expected a comma, or ] at the end of the list above",
    ),
    ("unclosed array", "found the end of the file in a list, expected ]"),
    (
        "unexpected leading zero",
        "found a number with a leading zero, expected the number without it",
    ),
    (
        "unexpected key or value",
        "found more than one key in a line, expected each in a line of its own",
    ),
];

/// Explains an error of the parser, at the beginning of `rest`.
pub(super) fn explain(error: &str, rest: &str) -> String {
    match rest.chars().next() {
        Some(mark @ ('“' | '”' | '„' | '‘' | '’' | '«' | '»')) => {
            return format!("found the typographic quotation mark {mark}, expected \"");
        }
        Some(c) if !c.is_ascii() => {
            let code = u32::from(c);
            return format!("found the character U+{code:04X}, expected a plain space or letter");
        }
        Some(':') if error.starts_with("invalid unquoted key") => {
            return "found a colon after a key, expected KEY = VALUE".to_owned();
        }
        _ => {}
    }
    let known = EXPLAINED.iter().find(|(start, _)| error.starts_with(start));
    known.map_or_else(|| format!("not valid TOML: {error}"), |(_, text)| (*text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_error_is_passed_on() {
        assert_eq!(explain("strange", "x"), "not valid TOML: strange");
        assert_eq!(explain("strange", ""), "not valid TOML: strange");
        assert_eq!(other_format("# comment\n\n[web]\nport: 1"), None);
    }
}

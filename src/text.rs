//! Sanitizes untrusted text (findings, file names, output of programs) for logs, terminals and clients. Every such text
//! passes through one of these functions.

use std::fmt::{Display, Write as _};

/// Returns whether the character acts on the display instead of being shown: a control character, a line separator, a
/// bidirectional control, or an invisible character that hides text or tells it apart only for machines (byte order
/// mark, tags, interlinear annotation, soft hyphen, Hangul filler). Zero-width joiners and variation selectors are not
/// listed: scripts of several languages and emoji need them.
#[must_use]
pub fn is_control_or_bidi(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Returns the text with tabs kept and all other control and bidirectional characters replaced by spaces, for a line of
/// output that is shown as it is.
#[must_use]
pub fn replace_untrusted(text: &str) -> String {
    text.replace(|character| character != '\t' && is_control_or_bidi(character), " ")
}

/// Escapes control and bidirectional characters (`\n`, `\u{1b}`), so that the result is a single line without
/// terminal sequences.
#[must_use]
pub fn escape_untrusted(text: impl Display) -> String {
    escape(&text.to_string(), is_control_or_bidi, |character, escaped| {
        escaped.extend(character.escape_default());
    })
}

/// Returns TOML with control and bidirectional characters, except line ends and tabs, as escapes of a basic string. Strings
/// keep their values if they are basic ones on a single line; escapes in comments are shown as such.
#[must_use]
pub fn escape_toml(text: &str) -> String {
    let acts = |character| !matches!(character, '\n' | '\t') && is_control_or_bidi(character);
    escape(text, acts, |character, escaped| {
        let code = u32::from(character);
        let _infallible = if code > 0xffff {
            write!(escaped, "\\U{code:08x}")
        } else {
            write!(escaped, "\\u{code:04x}")
        };
    })
}

/// Returns JSON with control and bidirectional characters as escapes. Such characters are parts of strings, which keep
/// their values.
#[must_use]
pub fn escape_json(json: &str) -> String {
    escape(json, is_control_or_bidi, |character, escaped| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _infallible = write!(escaped, "\\u{unit:04x}");
        }
    })
}

/// Returns HTML in which control and bidirectional characters, except line ends, are shown as escapes (`\u{202e}`).
#[must_use]
pub fn escape_html(html: &str) -> String {
    let acts = |character| character != '\n' && is_control_or_bidi(character);
    escape(html, acts, |character, escaped| escaped.extend(character.escape_default()))
}

/// Returns the text with the characters for which `acts` is true replaced by what `write` appends.
fn escape(text: &str, acts: impl Fn(char) -> bool, write: impl Fn(char, &mut String)) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if acts(character) {
            write(character, &mut escaped);
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Returns at most `max` bytes of the text as a single line, trimmed, with control and bidirectional characters
/// replaced by spaces.
#[must_use]
pub fn single_line(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    for character in text.trim().chars() {
        let character = if is_control_or_bidi(character) { ' ' } else { character };
        if line.len() + character.len_utf8() > max {
            break;
        }
        line.push(character);
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_a_terminal_acts_on() {
        assert_eq!(
            escape_untrusted("a\u{1b}[31m\nb\r\u{9b}2J\u{202e}c"),
            "a\\u{1b}[31m\\nb\\r\\u{9b}2J\\u{202e}c"
        );
        assert_eq!(escape_untrusted("Bücher & 文書.png"), "Bücher & 文書.png");
    }

    /// Characters that reorder, hide or break text, and the letters that must pass.
    #[test]
    fn every_sanitizer_stops_invisible_and_reordering_characters() {
        for character in [
            '\u{202e}',
            '\u{2066}',
            '\u{2028}',
            '\u{feff}',
            '\u{e0041}',
            '\u{e007f}',
            '\u{200b}',
            '\u{85}',
            '\u{1b}',
            '\u{7f}',
            '\u{ad}',
            '\u{3164}',
        ] {
            let text = format!("a{character}b");
            assert_eq!(single_line(&text, 100), "a b", "{character:?}");
            assert_eq!(replace_untrusted(&text), "a b", "{character:?}");
            let escaped = escape_untrusted(&text);
            assert!(escaped.is_ascii() && escaped.contains('\\'), "{escaped:?}");
            assert_eq!(escape_html(&format!("<p>{text}</p>\n")), format!("<p>{escaped}</p>\n"));
            // The value of the string is unchanged.
            let toml = escape_toml(&format!("\tkey = \"{text}\" # {text}\n"));
            assert!(toml.is_ascii(), "{toml:?}");
            let parsed: toml::Table = toml.parse().unwrap();
            assert_eq!(parsed["key"].as_str(), Some(text.as_str()));
            let json = escape_json(&serde_json::to_string(&text).unwrap());
            assert!(json.is_ascii(), "{json:?}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
        assert_eq!(replace_untrusted("a\tb"), "a\tb");
        let shown = "क्‍ष می‌خواهم 👩‍💻 é ❤️";
        assert_eq!(replace_untrusted(shown), shown);
        assert_eq!(escape_untrusted(shown), shown);
    }

    #[test]
    fn single_line_is_trimmed_cut_and_free_of_controls() {
        assert_eq!(single_line(" a\tb\u{1b}[31mc\r\nd \n", 100), "a b [31mc  d");
        assert_eq!(single_line("a\u{202e}b", 100), "a b");
        assert_eq!(single_line("äöü", 3), "ä", "never half a character");
        assert_eq!(single_line("ab  cd", 4), "ab", "no space at the end");
    }
}

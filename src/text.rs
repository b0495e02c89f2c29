//! Sanitizes untrusted text (findings, file names, output of programs) for logs, terminals and clients. Every such text
//! passes through one of these functions.

use std::fmt::Display;

/// Returns whether the character is a control character, a line separator or a bidirectional control.
#[must_use]
pub fn is_control_or_bidi(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes control and bidirectional characters (`\n`, `\u{1b}`), so that the result is a single line without
/// terminal sequences.
#[must_use]
pub fn escape_untrusted(text: impl Display) -> String {
    let mut line = String::new();
    for character in text.to_string().chars() {
        if is_control_or_bidi(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
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

    #[test]
    fn single_line_is_trimmed_cut_and_free_of_controls() {
        assert_eq!(single_line(" a\tb\u{1b}[31mc\r\nd \n", 100), "a b [31mc  d");
        assert_eq!(single_line("a\u{202e}b", 100), "a b");
        assert_eq!(single_line("äöü", 3), "ä", "never half a character");
        assert_eq!(single_line("ab  cd", 4), "ab", "no space at the end");
    }
}

//! What a person at a terminal gets, and a file or a pipe does not: colour, and a line that says how long something takes. No
//! variable of the environment is asked, neither `NO_COLOR` nor `TERM`: `--color` says otherwise. And text of others,
//! made harmless: terminals act on what they are sent.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    pin::pin,
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use tokio::time::{Instant, interval_at};

/// Names of sections and places.
pub const HEADING: Style = Style::new().bold();
/// As it should be.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Worth a word.
pub const NOTE: Style = AnsiColor::Yellow.on_default();
/// Not as it should be.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

/// What takes less has no progress line.
const PATIENCE: Duration = Duration::from_millis(500);

/// How wide a terminal is that does not say it.
const COLUMNS: u16 = 80;

/// When there is colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum When {
    /// On a terminal
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// Colour or none, of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Paint(bool);

/// Both streams.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Terminal {
    pub stdout: Paint,
    pub stderr: Paint,
}

impl When {
    /// Of this process.
    #[must_use]
    pub fn terminal(self) -> Terminal {
        let paint = |is_terminal| Paint(self == Self::Always || self == Self::Auto && is_terminal);
        Terminal {
            stdout: paint(io::stdout().is_terminal()),
            stderr: paint(io::stderr().is_terminal()),
        }
    }
}

impl Paint {
    /// Whether there is any.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.0
    }

    /// The text in this style.
    #[must_use]
    pub fn on(self, style: Style, text: impl Display) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}

/// Control characters, and the invisible ones that turn the text around them about.
#[must_use]
pub fn shapes_text(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line, in which such characters are spelt: `\n`, `\u{1b}`.
#[must_use]
pub fn harmless(text: impl Display) -> String {
    let mut line = String::new();
    for character in text.to_string().chars() {
        if shapes_text(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Does `work`; what takes long has a line on standard error that says what it is and how long it has taken, and that is gone in
/// the end. Only on a terminal.
pub async fn with_progress<T>(what: &str, work: impl Future<Output = T>) -> T {
    if !io::stderr().is_terminal() {
        return work.await;
    }
    let begun = Instant::now();
    let mut ticks = interval_at(begun + PATIENCE, Duration::from_secs(1));
    let (mut work, mut line) = (pin!(work), Line::default());
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => line.show(&format!("{} s: {what}", begun.elapsed().as_secs())),
        }
    }
}

/// Overwritten with spaces rather than erased: that takes no sequence that a terminal could lack.
#[derive(Default)]
struct Line {
    width: usize,
}

impl Line {
    fn show(&mut self, text: &str) {
        let columns = terminal_size::terminal_size_of(io::stderr()).map_or(COLUMNS, |(it, _)| it.0);
        // The last column would wrap the line on some.
        let (text, width) = cut(text, usize::from(columns).saturating_sub(1));
        let rest = self.width.saturating_sub(width);
        self.width = width;
        Self::write(&format!("\r{text}{:rest$}\r", ""));
    }

    fn write(text: &str) {
        let _nobody_reads = io::stderr().lock().write_all(text.as_bytes());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.width > 0 {
            Self::write(&format!("\r{:1$}\r", "", self.width));
        }
    }
}

/// What fits, and how many columns it takes at the most: two for whatever is no ASCII.
fn cut(text: &str, columns: usize) -> (String, usize) {
    let (mut kept, mut width) = (String::new(), 0);
    for character in text.chars() {
        let wider = width + if character.is_ascii() { 1 } else { 2 };
        if wider > columns {
            break;
        }
        kept.push(character);
        width = wider;
    }
    (kept, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_spelt() {
        assert_eq!(
            harmless("a\u{1b}[31m\nb\r\u{9b}2J\u{202e}c"),
            "a\\u{1b}[31m\\nb\\r\\u{9b}2J\\u{202e}c"
        );
        assert_eq!(harmless("Bücher & 文書.png"), "Bücher & 文書.png");
    }

    #[test]
    fn a_line_is_no_wider_than_the_terminal() {
        assert_eq!(cut("scanning", 4), ("scan".to_owned(), 4));
        assert_eq!(cut("a文書", 4), ("a文".to_owned(), 3));
        assert_eq!(cut("a", 0), (String::new(), 0));
    }
}

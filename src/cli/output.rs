//! Colour and lines of the output. Files and pipes get plain text. Colour depends on `--color` only, not on environment
//! variables such as `NO_COLOR` or `TERM`.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use anstyle::{AnsiColor, Style};

/// Section headings.
pub(super) const HEADING: Style = Style::new().bold();
/// Success.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Notes and hints.
pub(super) const NOTE: Style = AnsiColor::Yellow.on_default();
/// Errors.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Value of `--color`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(super) enum ColorMode {
    /// Colour on a terminal only
    #[default]
    Auto,
    /// Colour everywhere
    Always,
    /// No colour
    Never,
}

/// Applies styles to the text of one stream if colour is enabled for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Painter(bool);

/// Painters of both output streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    pub(super) stdout: Painter,
    pub(super) stderr: Painter,
}

impl ColorMode {
    /// Returns the painters of this process's output streams.
    pub(super) fn terminal(self) -> Terminal {
        let painter =
            |is_terminal| Painter(self == Self::Always || self == Self::Auto && is_terminal);
        Terminal {
            stdout: painter(io::stdout().is_terminal()),
            stderr: painter(io::stderr().is_terminal()),
        }
    }
}

impl Painter {
    /// Returns whether colour is enabled.
    pub(super) fn is_enabled(self) -> bool {
        self.0
    }

    /// Returns the text in this style.
    pub(super) fn paint(self, style: Style, text: impl Display) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}

/// Prints a line. Errors such as a closed pipe are ignored; the exit code still reports the result.
pub(super) fn print_line(line: impl Display) {
    let _ignored = writeln!(io::stdout(), "{line}");
}

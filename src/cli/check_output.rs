//! Output of `check-config`: notes, and with `--show` everything, as comments of a valid configuration file.

use std::{
    fmt::Display,
    io::{self, Write},
};

use super::output::{BAD, GOOD, HEADING, NOTE, Painter, Terminal, print_line};
use crate::{
    config::Config,
    text::{escape_toml, escape_untrusted},
};

pub(super) struct CheckOutput {
    stdout: Painter,
    stderr: Painter,
    is_shown: bool,
}

impl CheckOutput {
    /// `is_shown`: whether to print the details too.
    pub(super) fn new(terminal: Terminal, is_shown: bool) -> Self {
        Self { stdout: terminal.stdout, stderr: terminal.stderr, is_shown }
    }

    /// Prints the effective configuration as TOML.
    pub(super) fn config(&self, config: &Config) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for line in escape_toml(&config.to_string()).lines() {
            if line.starts_with('[') {
                writeln!(out, "{}", self.stdout.paint(HEADING, line))
            } else {
                writeln!(out, "{line}")
            }?;
        }
        writeln!(out)?;
        out.flush()
    }

    /// Prints what an operator need not know.
    pub(super) fn detail(&self, text: impl Display) {
        if self.is_shown {
            print_line(format_args!("# {}", escape_untrusted(text)));
        }
    }

    /// Prints a detail that reports a success.
    pub(super) fn good_detail(&self, text: impl Display) {
        if self.is_shown {
            self.good(text);
        }
    }

    /// Prints a success.
    pub(super) fn good(&self, text: impl Display) {
        let text = format!("{}{}", self.prefix(), escape_untrusted(text));
        print_line(self.stdout.paint(GOOD, text));
    }

    /// Prints a probable mistake.
    pub(super) fn note(&self, text: impl Display) {
        let text = format!("{}note: {}", self.prefix(), escape_untrusted(text));
        print_line(self.stdout.paint(NOTE, text));
    }

    /// Prints a detail that looks like a note, since it may be one.
    pub(super) fn highlighted_detail(&self, text: impl Display) {
        if self.is_shown {
            let text = format!("# {}", escape_untrusted(text));
            print_line(self.stdout.paint(NOTE, text));
        }
    }

    /// Prints an error.
    pub(super) fn error(&self, text: impl Display) {
        eprintln!("{}: {}", self.stderr.paint(BAD, "error"), escape_untrusted(text));
    }

    fn prefix(&self) -> &'static str {
        if self.is_shown { "# " } else { "" }
    }
}

//! `completions`: prints the completions of a shell, as the packages install them.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::{arguments::Cli, error::CommandError};

pub(crate) fn run(shell: Shell) -> Result<ExitCode, CommandError> {
    let mut command = <Cli as CommandFactory>::command().disable_help_subcommand(true);
    // Generated into memory, since the library panics if standard output is closed.
    let mut text = Vec::new();
    generate(shell, &mut command, "matrix-content-scanner", &mut text);
    io::stdout().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

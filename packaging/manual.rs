//! Generates man pages and shell completions from the definition of the command line.
//!
//! This is a Cargo example, so that its dependencies are not linked into the program.
//!
//! `cargo run --example manual -- DIRECTORY`

use std::{env, fs, io, path::PathBuf};

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use matrix_content_scanner::cli::Cli;

const NAME: &str = "matrix-content-scanner";

fn main() -> io::Result<()> {
    let directory = PathBuf::from(env::args_os().nth(1).unwrap_or_else(|| "target/manual".into()));
    fs::create_dir_all(&directory)?;
    let command = <Cli as CommandFactory>::command().name(NAME);
    // The pages of `help` would repeat the others.
    let mut command = command.disable_help_subcommand(true);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, NAME, &directory)?;
    }
    clap_mangen::generate_to(command, &directory)
}

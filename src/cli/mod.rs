//! Command line of the program: arguments, one file for each subcommand, output, hints after errors, signals.

mod admin_client;
mod arguments;
mod check_output;
mod commands;
mod error;
mod health_report;
mod hints;
mod incident_output;
mod output;
mod progress;
mod service_arguments;
mod service_unit;
mod setup;
mod signals;
mod store_output;

use std::process::ExitCode;

pub use arguments::Cli;
use arguments::CliCommand;
use commands::{
    check_config, completions, doctor, generate_key, migrate, public_key, quarantine, sandbox,
    scan, serve, store, user_hash,
};
use output::ColorMode;

/// Executes the subcommand that the arguments of this process name, and reports its error.
#[must_use]
pub fn run() -> ExitCode {
    if let Err(error) = setup::restrict_process() {
        return error.report(ColorMode::default().terminal().stderr);
    }
    let cli = Cli::from_arguments();
    let result = match cli.command() {
        CliCommand::Serve => serve::run(&cli),
        CliCommand::CheckConfig(arguments) => check_config::run(&cli, arguments),
        CliCommand::Scan { files } => scan::run(&cli, &files),
        CliCommand::Sandbox { command } => sandbox::run(&cli, &command),
        CliCommand::Doctor { json } => doctor::run(&cli, json),
        CliCommand::PublicKey => public_key::run(&cli),
        CliCommand::UserHash { user } => user_hash::run(&cli, &user),
        CliCommand::GenerateKey { file } => generate_key::run(&file),
        CliCommand::Completions { shell } => completions::run(shell),
        CliCommand::Store { address, command } => store::run(&cli, &address, command),
        CliCommand::Quarantine { address, command } => quarantine::run(&cli, &address, command),
        CliCommand::Migrate { file, output, base } => {
            migrate::run(&file, output.as_deref(), base.as_deref())
        }
    };
    result.unwrap_or_else(|error| error.report(cli.terminal().stderr))
}

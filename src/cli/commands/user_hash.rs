//! `user-hash`: prints the hash of a user in the audit log alone, so that scripts can use the output.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{
    app::StartError,
    cli::{arguments::Cli, error::CommandError, setup::LoadedConfig},
    keys::RequestKey,
    telemetry::audit::UserHasher,
    text::escape_untrusted,
};

pub(crate) fn run(cli: &Cli, user: &str) -> Result<ExitCode, CommandError> {
    let LoadedConfig { config, .. } = LoadedConfig::load(cli)?;
    // Does not generate a missing key: nothing was hashed with a new one.
    let (key, notices) = RequestKey::reload(&config.crypto).map_err(StartError::from)?;
    for notice in notices {
        eprintln!("{}", escape_untrusted(notice));
    }
    writeln!(io::stdout(), "{}", key.derive(UserHasher::derive).hash(user))?;
    Ok(ExitCode::SUCCESS)
}

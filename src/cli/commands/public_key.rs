//! `public-key`: prints the key alone, so that scripts can use the output.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{
    app::StartError,
    cli::{arguments::Cli, error::CommandError, setup::LoadedConfig},
    keys::RequestKey,
    text::escape_untrusted,
};

pub(crate) fn run(cli: &Cli) -> Result<ExitCode, CommandError> {
    let LoadedConfig { config, .. } = LoadedConfig::load(cli)?;
    let (key, notices) = RequestKey::load(&config.crypto).map_err(StartError::from)?;
    for notice in notices {
        eprintln!("{}", escape_untrusted(notice));
    }
    writeln!(io::stdout(), "{}", key.public_key())?;
    Ok(ExitCode::SUCCESS)
}

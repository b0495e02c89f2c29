//! `generate-key`: writes a new request key.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use crate::{cli::error::CommandError, keys::RequestKey};

/// Prints the public key alone, as `public-key` does.
pub(crate) fn run(file: &Path) -> Result<ExitCode, CommandError> {
    let key = RequestKey::generate(file).map_err(CommandError::GenerateKey)?;
    writeln!(io::stdout(), "{}", key.public_key())?;
    Ok(ExitCode::SUCCESS)
}

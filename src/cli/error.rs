//! Errors of the subcommands, with their hints and exit codes.

use std::{io, path::PathBuf, process::ExitCode};

use mcs_migrate::MigrateError;

use super::{
    admin_client::ClientError,
    arguments::{EXIT_CONFIG, EXIT_TEMPORARY},
    hints,
    output::{BAD, NOTE, Painter},
};
use crate::{
    admin::TokenError,
    app::{StartError, service_manager::PassedSocketError},
    chain::Chain,
    config::ConfigErrors,
    keys::KeyError,
    scan::{ScanError, canary::CanaryError},
    telemetry::log,
    text::escape_untrusted,
};

/// Exit code of `scan` and `sandbox` when no program ran on a file, and of `store` when the service could not be asked. Also clap's exit code for invalid arguments.
pub(super) const EXIT_NOT_RUN: u8 = 2;

const EXIT_FAILURE: u8 = 1;

/// Reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// Each problem is printed separately.
    #[error("the configuration is invalid")]
    Config { file: Option<PathBuf>, errors: ConfigErrors },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    PassedSocket(#[from] PassedSocketError),
    /// A system call failed, or standard output.
    #[error(transparent)]
    System(#[from] io::Error),
    /// `check-config`: the canary failed.
    #[error("{}", Chain(error))]
    Canary { error: CanaryError, hint: String },
    /// `scan`, `sandbox`: the engines or the sandbox cannot be used.
    #[error(transparent)]
    Unprepared(StartError),
    /// `sandbox`: the command did not run.
    #[error(transparent)]
    NotRun(#[from] ScanError),
    /// `store`: there is no listener to ask.
    #[error("admin.enabled is false, so the service cannot be asked")]
    AdminOff,
    /// `store`: the token cannot be read.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// `store`: the service could not be asked, or refused.
    #[error(transparent)]
    Service(#[from] ClientError),
    /// `generate-key`: the key was not written.
    #[error(transparent)]
    GenerateKey(KeyError),
    /// `migrate`: the file was not converted.
    #[error("{}", file.display())]
    Migrate { file: PathBuf, source: MigrateError },
    /// `migrate`: the converted file was not written.
    #[error("cannot write {target}")]
    Write { target: String, source: io::Error },
}

impl CommandError {
    /// Prints the error to standard error, followed by a hint if there is one, and returns the exit code.
    pub(super) fn report(&self, painter: Painter) -> ExitCode {
        let priority = log::error_priority();
        if let Self::Config { errors, .. } = self {
            for problem in errors.problems() {
                eprintln!("{priority}{}", escape_untrusted(problem));
            }
        } else {
            let error = painter.paint(BAD, "error");
            eprintln!("{priority}{error}: {}", escape_untrusted(Chain(self)));
        }
        if let Some(hint) = self.hint() {
            let heading = painter.paint(NOTE, "hint");
            eprintln!("{priority}{heading}: {}", escape_untrusted(hint));
        }
        ExitCode::from(self.exit_code())
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Config { file, .. } => hints::for_config(file.as_deref()),
            Self::Start(error) => hints::for_start(error),
            Self::Canary { hint, .. } => Some(hint.clone()),
            Self::AdminOff => Some(hints::ADMIN_OFF.to_owned()),
            Self::GenerateKey(KeyError::Write { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                Some(hints::KEY_EXISTS.to_owned())
            }
            _ => None,
        }
    }

    /// [`EXIT_CONFIG`] if a restart without a change by the operator is useless, [`EXIT_TEMPORARY`] if a secret may
    /// become available.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } => EXIT_CONFIG,
            Self::Start(error) if error.is_configuration() => EXIT_CONFIG,
            Self::Start(error) if error.is_temporary() => EXIT_TEMPORARY,
            Self::Unprepared(_)
            | Self::NotRun(_)
            | Self::AdminOff
            | Self::Token(_)
            | Self::Service(_) => EXIT_NOT_RUN,
            Self::Start(_)
            | Self::PassedSocket(_)
            | Self::System(_)
            | Self::Canary { .. }
            | Self::GenerateKey(_)
            | Self::Migrate { .. }
            | Self::Write { .. } => EXIT_FAILURE,
        }
    }
}

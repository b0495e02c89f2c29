//! Errors of starting the service.

use std::{io, path::PathBuf};

use super::{limits::LimitError, store_error::StoreSetupError};
use crate::{
    admin::TokenError, http::listener::BindError, identity::denied_user,
    incident::IncidentSetupError, keys::KeyError, media::OutboundSetupError, scan::engines,
    telemetry::audit::AuditError,
};

/// Reason why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("a limit of the operating system is too low")]
    Limit(#[from] LimitError),
    #[error("the request key cannot be used")]
    Key(#[from] KeyError),
    #[error("[download] cannot be used")]
    Download(#[from] OutboundSetupError),
    #[error("the engines cannot be used")]
    Engines(#[from] engines::EngineSetupError),
    #[error("the evaluator cannot be prepared")]
    Evaluator(#[source] io::Error),
    #[error("the sandbox cannot be used")]
    Sandbox(#[from] mcs_sandbox::Error),
    #[error("{} (scan.temp_directory) cannot be used{}", path.display(), denied_user(source))]
    TempDirectory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Listen(#[from] BindError),
    #[error("cannot listen for operators ([operations])")]
    Operations(#[source] BindError),
    #[error("cannot listen for operators' changes ([admin])")]
    Admin(#[source] BindError),
    #[error("the tokens of [admin] cannot be used")]
    AdminTokens(#[from] TokenError),
    #[error("the store of verdicts ([store]) cannot be used")]
    Store(#[from] StoreSetupError),
    #[error("incidents ([quarantine], [[notify]], incident.rescan) cannot be handled")]
    Incidents(#[from] IncidentSetupError),
    #[error("audit.path cannot be used")]
    Audit(#[from] AuditError),
    #[error("cannot listen on the socket that the service manager passed")]
    PassedSocket(#[source] io::Error),
}

impl StartError {
    /// Whether the operator has to change a setting or a limit of the service manager, so that a restart is useless.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Limit(_)
            | Self::Sandbox(mcs_sandbox::Error::TooFewTasks { .. })
            | Self::Store(StoreSetupError::ShortSecret { .. }) => true,
            Self::AdminTokens(error) | Self::Incidents(IncidentSetupError::Secret(error)) => {
                error.is_configuration()
            }
            Self::Key(error) => error.is_invalid(),
            _ => false,
        }
    }

    /// Whether a file with a secret is missing or cannot be read, so that a later restart may succeed.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::AdminTokens(error) | Self::Incidents(IncidentSetupError::Secret(error)) => {
                !error.is_configuration()
            }
            Self::Key(error) => !error.is_invalid(),
            Self::Store(StoreSetupError::Secret { .. }) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_the_service_manager_are_configuration() {
        let tasks = mcs_sandbox::Error::TooFewTasks { max: 600, programs: 16, reserved: 512 };
        assert!(StartError::from(tasks).is_configuration());
        let source = io::Error::from_raw_os_error(nix::libc::EAGAIN);
        assert!(StartError::from(LimitError::Threads { needed: 4, source }).is_configuration());
        assert!(!StartError::from(mcs_sandbox::Error::HelperNotFound).is_configuration());
    }

    #[test]
    fn wrong_key_is_configuration_and_unavailable_key_is_temporary() {
        let path = PathBuf::from("key");
        let read = |kind: io::ErrorKind| KeyError::Read { path: path.clone(), source: kind.into() };
        for (error, is_wrong) in [
            (KeyError::Missing { path: path.clone(), remedy: "" }, false),
            (read(io::ErrorKind::PermissionDenied), false),
            (read(io::ErrorKind::NotADirectory), false),
            (read(io::ErrorKind::InvalidInput), true),
            (read(io::ErrorKind::InvalidData), true),
            (read(io::ErrorKind::FileTooLarge), true),
            (read(io::ErrorKind::Other), true),
            (KeyError::Content { path: path.clone(), found: "", expected: "" }, true),
            (KeyError::WrongPickleKey { path: path.clone() }, true),
        ] {
            let error = StartError::from(error);
            assert_eq!(error.is_configuration(), is_wrong, "{error:?}");
            assert_eq!(error.is_temporary(), !is_wrong, "{error:?}");
        }
    }
}

//! Errors of starting the service.

use std::{io, path::PathBuf};

use super::{limits::LimitError, store_error::StoreSetupError};
use crate::{
    admin::TokenError, http::listener::BindError, identity::denied_user, keys::KeyError,
    media::OutboundSetupError, scan::engines, telemetry::audit::AuditError,
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
    #[error("cannot listen")]
    Listen(#[from] BindError),
    #[error("cannot listen for operators ([operations])")]
    Operations(#[source] BindError),
    #[error("cannot listen for operators' changes ([admin])")]
    Admin(#[source] BindError),
    #[error("the token of [admin] cannot be used")]
    AdminToken(#[from] TokenError),
    #[error("the store of verdicts ([store]) cannot be used")]
    Store(#[from] StoreSetupError),
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
            Self::Limit(_) | Self::Sandbox(mcs_sandbox::Error::TooFewTasks { .. }) => true,
            Self::AdminToken(error) => error.is_configuration(),
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
}

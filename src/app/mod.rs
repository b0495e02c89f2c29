//! Builds the service from its configuration, runs it, and shuts it down. Does not read configuration files or signals:
//! both are arguments.

mod build;
mod drain;
mod error;
pub mod limits;
mod reload;
mod run;
pub mod service_manager;
mod supervision;

pub use build::{SandboxEnv, remote_engines, scan_context, unknown_types};
pub use error::{RulesError, StartError};
pub use reload::{ReadConfig, Reload};
pub use run::{GRACE_PERIOD, ServiceContext, serve};

//! Builds the service from its configuration, runs it, and shuts it down. Does not read configuration files or signals:
//! both are arguments.

mod build;
mod drain;
mod error;
mod incidents;
pub mod limits;
mod listen;
mod notices;
mod parts;
mod reload;
mod run;
mod sandbox_env;
pub mod service_manager;
mod store;
mod store_error;
mod supervision;

pub use build::ServiceContext;
pub use drain::GRACE_PERIOD;
pub use error::StartError;
pub use notices::{observed, unknown_types};
pub use parts::{remote_engines, scan_context};
pub use reload::{ReadConfig, Reload};
pub use run::serve;
pub use sandbox_env::SandboxEnv;
pub use store::{SharedStoreState, StoreCheck, check_store, inspect_store};
pub use store_error::StoreSetupError;

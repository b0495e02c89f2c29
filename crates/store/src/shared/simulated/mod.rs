//! Server in the process, whose clock, delays and failures a test controls, with the semantics of the commands that
//! the shared store uses. One server, not a cluster: hash slots are ignored.

mod commands;
mod connection;
mod keyspace;
mod server;

pub(crate) use connection::SimulatedConnector;
pub use keyspace::KeyspaceSnapshot;
pub use server::{SimulatedNode, SimulatedServer};

//! The sections. Each declares its keys, and checks that they fit together.

pub mod admin;
pub mod audit;
pub mod bounds;
pub mod canary;
pub mod clamd;
pub mod crypto;
pub mod download;
pub mod engines;
pub mod hashes;
pub mod headers;
pub mod icap;
pub mod incident;
pub mod listen;
pub mod log;
mod mime;
pub mod notify;
pub mod operations;
mod prelude;
pub mod quarantine;
pub mod result_cache;
pub mod rules;
pub mod sandbox;
pub mod scan;
pub mod shared_store;
pub mod store;
pub mod unpack;
pub mod web;

//! Matrix Content Scanner: a web service between Matrix clients and a content repository. For each request it downloads
//! the media, decrypts it if necessary, scans the plaintext, and returns the media only if it is clean.
//!
//! `ARCHITECTURE.md` contains the map of the modules, the way of one request, and a glossary.
#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod cause;
pub mod chain;
pub mod cli;
pub mod config;
mod exhaustion;
pub mod http;
pub mod identity;
pub mod incident;
pub mod keys;
mod lenient_base64;
pub mod media;
#[cfg(test)]
mod memory_bounds;
pub mod metrics;
pub mod ownership;
pub mod scan;
mod single_flight;
mod sync;
pub mod telemetry;
mod tenancy;
pub mod text;
pub mod token_file;

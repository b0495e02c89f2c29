//! Detects a file's media type from its content, with the names that `file --mime-type` prints.
//!
//! The rules are those of libmagic (file 5.46), from `magic-db`. `build.rs` prunes them and compiles them into the
//! program. `pure-magic` evaluates them without unsafe code.
//!
//! Files are untrusted, so every detection is bounded:
//!
//! - Rules see only the first 1 MiB and the last 4 KiB of a file, and only the first 64 KiB of a text.
//! - Rules may read 64 MiB of that in total, repeated reads included.
//!
//! A panic in `pure-magic` ends the detection: the caller runs it in a process of its own.
//!
//! Where `pure-magic` differs from `file`, the module `corrections` adjusts the result.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod buckets;
mod corrections;
mod detector;
mod limited_reader;
mod media_type;
mod mime_rules;
mod names;
mod rules;
mod text;

pub use detector::Detector;
pub use media_type::{MediaType, can_detect};
pub use mime_rules::MimeRules;
pub use rules::LoadError;

#[cfg(test)]
mod tests;

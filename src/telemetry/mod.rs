//! What the service reports to operators about itself.

pub mod operations;

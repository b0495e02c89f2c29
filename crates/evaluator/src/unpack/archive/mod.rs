//! Archives of files.

pub(super) mod tar;
pub(super) mod zip;

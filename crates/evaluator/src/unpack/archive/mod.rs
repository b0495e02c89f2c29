//! Archives of files.

mod checked;
mod coder_output;
pub(super) mod seven;
pub(super) mod tar;
pub(super) mod zip;

//! Archives of files.

pub(super) mod ar;
pub(super) mod arj;
pub(super) mod cab;
mod checked;
mod coder_output;
pub(super) mod cpio;
mod lz_reader;
pub(super) mod lzh;
mod lzh_reader;
pub(super) mod rar;
pub(super) mod rpm;
pub(super) mod seven;
pub(super) mod tar;
pub(super) mod zip;

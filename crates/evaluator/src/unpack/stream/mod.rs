//! Compression of a single stream.

pub(super) mod bzip2;
pub(super) mod compress;
pub(super) mod gzip;
pub(super) mod lz4;
pub(super) mod lzma;
mod members;
pub(super) mod szdd;
pub(super) mod xz;
pub(super) mod zstd;

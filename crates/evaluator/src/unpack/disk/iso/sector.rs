//! Sectors of an image.

/// Size of a sector, bytes.
pub(super) const SECTOR: usize = 2048;

//! Size of the blocks of an archive, and numbers in extended headers.

/// Size of headers; contents are padded to multiples of it.
pub(super) const BLOCK: usize = 512;

/// Parses a decimal number.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

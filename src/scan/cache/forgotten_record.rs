//! The stored form of the time at which operators had the verdicts on a content forgotten: milliseconds since 1970, in eight
//! bytes, the lowest first.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the stored form.
pub(super) fn encode(time: SystemTime) -> [u8; 8] {
    let elapsed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).to_le_bytes()
}

/// Reads the stored form.
pub(super) fn decode(record: &[u8]) -> Option<SystemTime> {
    let milliseconds = u64::from_le_bytes(record.try_into().ok()?);
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_read_as_it_was_stored() {
        let time = UNIX_EPOCH + Duration::from_millis(1_764_459_466_123);
        assert_eq!(decode(&encode(time)), Some(time));
        assert_eq!(decode(b"other"), None);
    }
}

//! The date of signatures, which engines report with their version.

use std::time::SystemTime;

/// Returns the time of the oldest signatures in the versions of an engine's servers. clamd reports `PROGRAM/NUMBER/DATE`, with
/// the date of ctime(3), which is HTTP's "asctime" format (RFC 9110, section 5.6.7).
#[must_use]
pub fn signature_time(versions: &str) -> Option<SystemTime> {
    let dates = versions.split(", ").filter_map(|version| {
        let (_, date) = version.rsplit_once('/')?;
        httpdate::parse_http_date(date.trim()).ok()
    });
    dates.min()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn oldest_signatures_count() {
        let seconds = |versions| {
            signature_time(versions).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs())
        };
        let version = "ClamAV 1.0.7/27100/Fri Jan  2 00:00:00 1970";
        assert_eq!(seconds(version), Some(86_400));
        let older = format!("{version}, ClamAV 1.0.7/27101/Thu Jan  1 00:00:09 1970");
        assert_eq!(seconds(&older), Some(9));
        for unknown in ["", "ClamAV 1.4.1", "\"istag\"", "istag/5", "a/b/c"] {
            assert_eq!(seconds(unknown), None, "{unknown}");
        }
    }
}

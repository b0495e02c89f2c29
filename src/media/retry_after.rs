//! Delay that a homeserver asks for: `Retry-After` (RFC 9110, section 10.2.3), or `retry_after_ms` of a Matrix error
//! (client-server API, section "Rate limiting").

use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap};

/// Maximum delay that is passed on to clients.
const MAX: Duration = Duration::from_secs(86_400);

/// Returns the delay in whole seconds, rounded up, at most [`MAX`]. The header takes precedence; a header that is
/// neither a number nor a date counts as absent.
pub(super) fn retry_after(
    headers: &HeaderMap,
    body_ms: Option<f64>,
    now: SystemTime,
) -> Option<Duration> {
    let header = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| parse_header(value.trim(), now));
    let from_body = || {
        let ms = body_ms.filter(|ms| *ms >= 0.0)?;
        Some(Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(MAX))
    };
    let delay = header.or_else(from_body)?.min(MAX);
    Some(Duration::from_secs(delay.as_secs() + u64::from(delay.subsec_nanos() > 0)))
}

fn parse_header(value: &str, now: SystemTime) -> Option<Duration> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Fails only for a number that is too large.
        return Some(value.parse().map_or(MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // A date in the past asks for no delay.
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn reads_header_and_body_and_limits_the_delay() {
        // 1994-11-06 08:49:00.5.
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_740_500);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (header, body_ms, expected) in [
            (None, None, None),
            (Some("7"), None, Some(7)),
            (Some(" 0 "), None, Some(0)),
            (Some("7"), Some(2000.0), Some(7)),
            (Some("86400"), None, Some(86_400)),
            (Some("86401"), None, Some(86_400)),
            (Some("99999999999999999999999"), None, Some(86_400)),
            (Some(date), None, Some(37)),
            (Some("Sun, 06 Nov 1994 08:48:37 GMT"), None, Some(0)),
            (Some("Sun, 06 Nov 2094 08:49:37 GMT"), None, None),
            (Some("Sat, 06 Nov 2094 08:49:37 GMT"), None, Some(86_400)),
            (Some("-1"), Some(2000.0), Some(2)),
            (Some("+1"), Some(2000.0), Some(2)),
            (Some("1.5"), Some(2000.0), Some(2)),
            (Some(""), Some(2000.0), Some(2)),
            (Some("soon"), None, None),
            (Some("\u{e9}"), None, None),
            (None, Some(0.0), Some(0)),
            (None, Some(1.0), Some(1)),
            (None, Some(2000.0), Some(2)),
            (None, Some(2000.5), Some(3)),
            (None, Some(1e300), Some(86_400)),
            (None, Some(-1.0), None),
            (None, Some(f64::NAN), None),
        ] {
            let value = header.map(|header| HeaderValue::from_bytes(header.as_bytes()).unwrap());
            let headers = HeaderMap::from_iter(value.map(|value| (header::RETRY_AFTER, value)));
            let found = retry_after(&headers, body_ms, now);
            assert_eq!(found, expected.map(Duration::from_secs), "{header:?} {body_ms:?}");
        }
    }
}

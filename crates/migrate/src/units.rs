//! Parses times and sizes in the syntax of the Python scanner (its `humanfriendly` library), and formats
//! times for the new file. <https://humanfriendly.readthedocs.io/en/latest/api.html>

use std::time::Duration;

/// Parses a number with a unit, by default seconds. As in `humanfriendly`, a year has 52 weeks.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    let seconds = match unit.to_ascii_lowercase().as_str() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "ns" | "nanosecond" | "nanoseconds" => 1e-9,
        "us" | "microsecond" | "microseconds" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 7.0 * 86_400.0,
        "y" | "year" | "years" => 364.0 * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// Parses a number with a unit, by default bytes. `KB` is 1000 bytes, `KiB` is 1024; apart from that,
/// only the first letter of the unit counts, as in `humanfriendly`. Saturates at `u64::MAX`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let unit = unit.to_ascii_lowercase();
    let (first, rest) = (unit.chars().next().unwrap_or('b'), unit.get(1..).unwrap_or_default());
    let power = match first {
        'b' => 0,
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        'p' => 5,
        'e' => 6,
        'z' => 7,
        'y' => 8,
        _ => return None,
    };
    let is_binary = matches!(rest, "ib" | "ibs") || unit.trim_end_matches('s').ends_with("bibyte");
    let base: f64 = if is_binary { 1024.0 } else { 1000.0 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and the number is not negative"
    )]
    let bytes = (number * base.powi(power)) as u64;
    Some(bytes)
}

/// Splits off a leading decimal number; returns it and the rest.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let is_number = number.starts_with(|c: char| c.is_ascii_digit())
        && number.ends_with(|c: char| c.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_number)?;
    Some((number, unit.trim()))
}

/// Formats a duration in the largest unit that divides it. Rounds up to milliseconds, so that a short
/// time does not become 0.
pub(crate) fn format_time(duration: Duration) -> String {
    let milliseconds = duration.as_nanos().div_ceil(1_000_000);
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let exact = units.into_iter().find(|(_, unit)| milliseconds.is_multiple_of(*unit));
    match exact {
        _ if milliseconds == 0 => "0s".into(),
        Some((name, unit)) => format!("{}{name}", milliseconds / unit),
        None => format!("{milliseconds}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_times() {
        for (text, converted) in [
            ("1d", "1d"),
            ("42", "42s"),
            ("1.5 h", "90m"),
            ("1 week", "7d"),
            ("2w", "14d"),
            ("1y", "364d"),
            ("10mins", "10m"),
            ("250ms", "250ms"),
            ("3us", "1ms"),
            ("0", "0s"),
            (" 604800.0 ", "7d"),
        ] {
            assert_eq!(parse_time(text).map(format_time).as_deref(), Some(converted), "{text}");
        }
        for text in ["", "d", "1 parsec", "-1d", "1d 2h", "1.d", "1..2d", ".5d", "1e3s", "١d"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(parse_time(&format!("{}y", "9".repeat(300))), None);
    }

    #[test]
    fn converts_sizes() {
        for (text, bytes) in [
            ("100MB", 100_000_000),
            ("100MiB", 100 << 20),
            ("1 KB", 1000),
            ("1 kib", 1024),
            ("13b", 13),
            ("5 bytes", 5),
            ("42", 42),
            ("1.5 GB", 1_500_000_000),
            ("2 megabytes", 2_000_000),
            ("2 mebibytes", 2 << 20),
            ("3 kibibyte", 3 << 10),
            ("1k", 1000),
            ("7 EiB", 7 << 60),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        assert_eq!(parse_size("9999 YB"), Some(u64::MAX));
        for text in ["", "MB", "-1", "1 x", "1.KB", "5 Ω"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}

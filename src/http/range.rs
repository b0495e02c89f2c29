//! One byte range of a body (RFC 9110, section 14). Pure: knows header values and a length.

use std::ops::Range;

/// What a `Range` header asks of a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Requested {
    /// All of it: no range that we serve. Several ranges, another unit and what cannot be parsed
    /// are ignored, as section 14.2 allows.
    Whole,
    /// These bytes; never empty.
    Part(Range<u64>),
    /// Bytes that the body does not have.
    Outside,
}

/// Reads the one `Range` value for a body of `length` bytes.
pub(super) fn requested(value: &str, length: u64) -> Requested {
    parse(value).map_or(Requested::Whole, |spec| spec.of(length))
}

enum Spec {
    From { first: u64, last: u64 },
    Suffix(u64),
}

fn parse(value: &str) -> Option<Spec> {
    let (unit, set) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Empty elements of a list count for nothing (section 5.6.1.2).
    let mut specs =
        set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|s| !s.is_empty());
    let (Some(spec), None) = (specs.next(), specs.next()) else { return None };
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        return number(last).map(Spec::Suffix);
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    (first <= last).then_some(Spec::From { first, last })
}

/// Digits alone. What no `u64` holds is beyond every body's end, as the largest `u64` is.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

impl Spec {
    fn of(self, length: u64) -> Requested {
        let range = match self {
            Self::From { first, last } => first..last.saturating_add(1).min(length),
            Self::Suffix(count) => length.saturating_sub(count)..length,
        };
        if range.is_empty() { Requested::Outside } else { Requested::Part(range) }
    }
}

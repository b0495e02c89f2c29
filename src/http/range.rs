//! Parses a single byte range (RFC 9110, section 14).

use std::ops::Range;

/// Part of a body that a `Range` header selects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum RequestedRange {
    /// The whole body. Several ranges, other units and malformed values are ignored, as section 14.2 allows.
    Whole,
    /// A non-empty range of bytes.
    Part(Range<u64>),
    /// A range that contains no byte of the body.
    Unsatisfiable,
}

/// Resolves the value of a `Range` header for a body of `length` bytes.
pub(super) fn requested_range(value: &str, length: u64) -> RequestedRange {
    parse(value).map_or(RequestedRange::Whole, |spec| spec.resolve(length))
}

enum RangeSpec {
    From { first: u64, last: u64 },
    Suffix(u64),
}

fn parse(value: &str) -> Option<RangeSpec> {
    let (unit, set) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Empty list elements are ignored (section 5.6.1.2).
    let mut specs =
        set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|s| !s.is_empty());
    let (Some(spec), None) = (specs.next(), specs.next()) else { return None };
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        return number(last).map(RangeSpec::Suffix);
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    (first <= last).then_some(RangeSpec::From { first, last })
}

/// Parses decimal digits. Values beyond `u64` saturate: both lie beyond the end of any body.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

impl RangeSpec {
    fn resolve(self, length: u64) -> RequestedRange {
        let range = match self {
            Self::From { first, last } => first..last.saturating_add(1).min(length),
            Self::Suffix(count) => length.saturating_sub(count)..length,
        };
        if range.is_empty() { RequestedRange::Unsatisfiable } else { RequestedRange::Part(range) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(range: Range<u64>) -> RequestedRange {
        RequestedRange::Part(range)
    }

    #[test]
    fn resolves_a_single_range() {
        for (value, expected) in [
            ("bytes=0-0", part(0..1)),
            ("bytes=2-5", part(2..6)),
            ("bytes=2-", part(2..10)),
            ("bytes=-3", part(7..10)),
            ("bytes=-99", part(0..10)),
            ("bytes=5-99", part(5..10)),
            ("Bytes=0-9", part(0..10)),
            ("bytes= 1-2 ,", part(1..3)),
            ("bytes=0-99999999999999999999999999", part(0..10)),
            ("bytes=10-", RequestedRange::Unsatisfiable),
            ("bytes=10-11", RequestedRange::Unsatisfiable),
            ("bytes=99999999999999999999999999-", RequestedRange::Unsatisfiable),
            ("bytes=-0", RequestedRange::Unsatisfiable),
            ("bytes=0-1,3-4", RequestedRange::Whole),
            ("bytes=5-2", RequestedRange::Whole),
            ("bytes=-", RequestedRange::Whole),
            ("bytes=", RequestedRange::Whole),
            ("bytes=+1-2", RequestedRange::Whole),
            ("bytes=a-b", RequestedRange::Whole),
            ("bytes=1-2-3", RequestedRange::Whole),
            ("items=0-1", RequestedRange::Whole),
            ("0-1", RequestedRange::Whole),
        ] {
            assert_eq!(requested_range(value, 10), expected, "{value}");
        }
        assert_eq!(requested_range("bytes=0-", 0), RequestedRange::Unsatisfiable);
        assert_eq!(requested_range("bytes=-1", 0), RequestedRange::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn range_contains_exactly_the_selected_positions(
            length in 0_u64..20, first in 0_u64..25, last in 0_u64..25, count in 0_u64..25,
        ) {
            let check = |value: String, is_in: &dyn Fn(u64) -> bool| {
                let model: Vec<u64> = (0..length).filter(|at| is_in(*at)).collect();
                match requested_range(&value, length) {
                    RequestedRange::Part(range) => prop_assert_eq!(range.collect::<Vec<_>>(), model),
                    RequestedRange::Unsatisfiable => prop_assert!(model.is_empty()),
                    RequestedRange::Whole => prop_assert!(first > last),
                }
                Ok(())
            };
            check(format!("bytes={first}-{last}"), &|at| first <= at && at <= last)?;
            check(format!("bytes={first}-"), &|at| first <= at)?;
            check(format!("bytes=-{count}"), &|at| at + count >= length)?;
        }

        #[test]
        fn arbitrary_text_is_parsed_or_ignored(value in "\\PC{0,30}", length: u64) {
            for value in [value.clone(), format!("bytes={value}")] {
                if let RequestedRange::Part(range) = requested_range(&value, length) {
                    prop_assert!(range.start < range.end && range.end <= length);
                }
            }
        }
    }
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(range: Range<u64>) -> Requested {
        Requested::Part(range)
    }

    #[test]
    fn one_range_of_a_body() {
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
            ("bytes=10-", Requested::Outside),
            ("bytes=10-11", Requested::Outside),
            ("bytes=99999999999999999999999999-", Requested::Outside),
            ("bytes=-0", Requested::Outside),
            ("bytes=0-1,3-4", Requested::Whole),
            ("bytes=5-2", Requested::Whole),
            ("bytes=-", Requested::Whole),
            ("bytes=", Requested::Whole),
            ("bytes=+1-2", Requested::Whole),
            ("bytes=a-b", Requested::Whole),
            ("bytes=1-2-3", Requested::Whole),
            ("items=0-1", Requested::Whole),
            ("0-1", Requested::Whole),
        ] {
            assert_eq!(requested(value, 10), expected, "{value}");
        }
        assert_eq!(requested("bytes=0-", 0), Requested::Outside);
        assert_eq!(requested("bytes=-1", 0), Requested::Outside);
    }

    proptest! {
        #[test]
        fn a_range_is_the_bytes_whose_position_lies_in_it(
            length in 0_u64..20, first in 0_u64..25, last in 0_u64..25, count in 0_u64..25,
        ) {
            let check = |value: String, is_in: &dyn Fn(u64) -> bool| {
                let model: Vec<u64> = (0..length).filter(|at| is_in(*at)).collect();
                match requested(&value, length) {
                    Requested::Part(range) => prop_assert_eq!(range.collect::<Vec<_>>(), model),
                    Requested::Outside => prop_assert!(model.is_empty()),
                    Requested::Whole => prop_assert!(first > last),
                }
                Ok(())
            };
            check(format!("bytes={first}-{last}"), &|at| first <= at && at <= last)?;
            check(format!("bytes={first}-"), &|at| first <= at)?;
            check(format!("bytes=-{count}"), &|at| at + count >= length)?;
        }

        #[test]
        fn any_text_is_read_or_ignored(value in "\\PC{0,30}", length: u64) {
            for value in [value.clone(), format!("bytes={value}")] {
                if let Requested::Part(range) = requested(&value, length) {
                    prop_assert!(range.start < range.end && range.end <= length);
                }
            }
        }
    }
}

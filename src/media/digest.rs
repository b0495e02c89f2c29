//! Text form of digests.

/// Formats a digest as lower-case hexadecimal.
pub(crate) fn hex<const N: usize>(digest: &[u8; N]) -> String {
    let mut text = String::with_capacity(2 * digest.len());
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    text
}

/// Parses a digest of `N` bytes in hexadecimal digits of either case.
pub(crate) fn parse_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut digest = [0; N];
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        for digit in pair {
            let digit = char::from(*digit).to_digit(16)?;
            *byte = (*byte << 4) | u8::try_from(digit).ok()?;
        }
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_survive_a_round_trip() {
        let digest = std::array::from_fn(|index| u8::try_from(index * 7).unwrap());
        assert_eq!(parse_hex::<32>(&hex(&digest)), Some(digest));
        assert_eq!(parse_hex::<32>(&hex(&digest).to_uppercase()), Some(digest));
        for wrong in ["", "00", &"0".repeat(63), &"0".repeat(65), &"0".repeat(66), &"g".repeat(64)]
        {
            assert_eq!(parse_hex::<32>(wrong), None, "{wrong}");
        }
        assert_eq!(parse_hex::<32>(&"+1".repeat(32)), None);
    }
}

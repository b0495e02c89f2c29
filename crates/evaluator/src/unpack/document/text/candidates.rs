//! Finds the words that may start a run of base64 or a `data:` URL, without examining the others: most objects are text
//! without files, or no text.

use memchr::memchr3;

use super::{
    base64::is_base64,
    evidence::{ANNOUNCEMENT_ENDS, is_announced},
};

/// Length from which words are candidates without an announcement, characters.
pub(super) const MIN_LONG: usize = 16;

/// Maximum number of bytes by which the end of a run may be behind the end of its last word.
const MAX_OVERLAP: usize = 2;

/// Searches one object from its start to its end.
pub(super) struct Candidates<'a> {
    bytes: &'a [u8],
    /// The next word of at least [`MIN_LONG`] characters.
    long: Next,
    /// The next byte of each half of [`ANNOUNCEMENT_ENDS`].
    ends: [Next; 2],
    /// Offset before which no announcement ends that was not returned.
    searched: usize,
}

/// An offset that was found.
#[derive(Clone, Copy)]
enum Next {
    Unknown,
    At(usize),
    None,
}

impl Next {
    /// Returns the offset, if that is not before `position`; otherwise what `find` returns.
    fn from(&mut self, position: usize, find: impl FnOnce() -> Option<usize>) -> Option<usize> {
        match self {
            Self::At(offset) if *offset >= position => return Some(*offset),
            Self::None => return None,
            Self::At(_) | Self::Unknown => {}
        }
        let found = find();
        *self = found.map_or(Self::None, Self::At);
        found
    }
}

impl<'a> Candidates<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, long: Next::Unknown, ends: [Next::Unknown; 2], searched: 0 }
    }

    /// Returns the offset of the next candidate at or after `position`, where no word continues. Positions must not
    /// decrease.
    pub(super) fn next(&mut self, position: usize) -> Option<usize> {
        let bytes = self.bytes;
        let long = self.long.from(position, || next_long_word(bytes, position));
        let announced = self.next_announced(position, long.unwrap_or(usize::MAX));
        match (long, announced) {
            (Some(long), Some(announced)) => Some(long.min(announced)),
            (long, announced) => long.or(announced),
        }
    }

    /// Returns the next candidate before `limit` that is behind an announcement or is the scheme of a `data:` URL.
    fn next_announced(&mut self, position: usize, limit: usize) -> Option<usize> {
        self.searched = self.searched.max(position.saturating_sub(MAX_OVERLAP));
        loop {
            let end = self.next_end(self.searched).filter(|end| *end < limit)?;
            self.searched = end + 1;
            let candidate = self.behind(end).or_else(|| self.scheme(end));
            if let Some(candidate) = candidate.filter(|candidate| *candidate >= position) {
                // The scheme of a URL may also end an announcement, for the next call.
                return Some(candidate);
            }
        }
    }

    fn next_end(&mut self, position: usize) -> Option<usize> {
        let bytes = self.bytes;
        let mut first = None;
        for (next, [a, b, c]) in self.ends.iter_mut().zip(ANNOUNCEMENT_ENDS) {
            let offset = next.from(position, || {
                memchr3(a, b, c, bytes.get(position..)?).map(|offset| position + offset)
            });
            first = match (first, offset) {
                (Some(first), Some(offset)) => Some(offset.min(first)),
                (first, offset) => first.or(offset),
            };
        }
        first
    }

    /// Returns the word behind an announcement that ends at `end`.
    fn behind(&self, end: usize) -> Option<usize> {
        let (announcement, rest) = self.bytes.split_at_checked(end + 1)?;
        if !is_announced(announcement) {
            return None;
        }
        let space = rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let word = end + 1 + space;
        match self.bytes.get(word..)? {
            // The first character is encoded.
            [b'%', next, ..] if is_base64(*next) => Some(word + 1),
            [first, ..] if is_base64(*first) => Some(word),
            _ => None,
        }
    }

    /// Returns the scheme `data` before a colon at `end`.
    fn scheme(&self, end: usize) -> Option<usize> {
        let before = self.bytes.get(..=end)?;
        let scheme = before.strip_suffix(b":")?.last_chunk::<4>()?;
        scheme.eq_ignore_ascii_case(b"data").then(|| end - scheme.len())
    }
}

/// Returns the next word of at least [`MIN_LONG`] characters at or after `position`. Examines the last byte of each
/// possible word first: if that byte is no character, all words with it are skipped.
fn next_long_word(bytes: &[u8], position: usize) -> Option<usize> {
    let mut start = position;
    loop {
        let window = bytes.get(start..start.checked_add(MIN_LONG)?)?;
        match window.iter().rposition(|byte| !is_base64(*byte)) {
            Some(last) => start += last + 1,
            None => return Some(start),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::unpack::document::text::base64::word_length;

    /// Returns the words that must be candidates, found one by one.
    fn expected(bytes: &[u8]) -> Vec<usize> {
        let mut words = Vec::new();
        let mut position = 0;
        while let Some(offset) = bytes[position..].iter().position(|byte| is_base64(*byte)) {
            let start = position + offset;
            let (before, rest) = bytes.split_at(start);
            let length = word_length(rest);
            let (word, after) = rest.split_at(length);
            let is_scheme = after.first() == Some(&b':')
                && word.last_chunk::<4>().is_some_and(|end| end.eq_ignore_ascii_case(b"data"));
            let encoded = before.strip_suffix(b"%").is_some_and(is_announced);
            if length >= MIN_LONG || is_announced(before) || encoded {
                words.push(start);
            } else if is_scheme {
                words.push(start + length - 4);
            }
            position = start + length;
        }
        words
    }

    fn found(bytes: &[u8]) -> Vec<usize> {
        let mut candidates = Candidates::new(bytes);
        let mut words = Vec::new();
        let mut position = 0;
        while let Some(start) = candidates.next(position) {
            words.push(start);
            position = start + word_length(&bytes[start..]);
        }
        words
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let parts = prop::sample::select(vec![
            ";base64,",
            "atob(\"",
            "data",
            ":",
            " ",
            "\n",
            "%",
            "%41",
            "word",
            "base64",
            ",",
            ">",
            "<w:binData>",
            "ENCODING=b:",
            "abcdefghijklmno",
            "abcdefghijklmnop",
            "\0",
            "'",
            "xdata:",
        ]);
        prop::collection::vec(parts, 0..40).prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn candidates_are_those_of_a_search_word_by_word(bytes in text()) {
            prop_assert_eq!(found(&bytes), expected(&bytes));
        }
    }

    #[test]
    fn announcement_before_the_end_of_a_run_is_found() {
        // A run may end behind an escape that is invalid.
        let bytes = b";base64,%;base64,QUJD";
        let mut candidates = Candidates::new(bytes);
        assert_eq!(candidates.next(10), Some(17));
        assert_eq!(candidates.next(21), None);
    }
}

//! The detection of a file's type.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::OnceLock,
};

use pure_magic::MagicDb;

use crate::{
    buckets::Buckets,
    corrections::correct,
    limited_reader::{BudgetExceeded, ContentKind, HEAD_LEN, LimitedReader, TAIL_LEN},
    media_type::MediaType,
    names::{PLAIN_TEXT, UNKNOWN},
    rules::{LoadError, load_all, load_text_rules},
    text::{TEXT_LEN, decode_text, detect_json, is_csv},
};

/// UTF-8 byte order mark.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Length of the bytes that [`Detector::preload`] evaluates the rules on.
const PRELOADED: usize = 16 << 10;

/// Detects types of files. Uses about 7 MiB of memory, and twice as much once all rules have been loaded.
pub struct Detector {
    buckets: Buckets,
    /// Rules for texts.
    text_rules: MagicDb,
    /// All other rules in one database, loaded when the first file needs them: mainly music with a leading tag.
    all_rules: OnceLock<Option<MagicDb>>,
}

impl fmt::Debug for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detector").finish_non_exhaustive()
    }
}

impl Detector {
    /// Loads the rules. Blocks for about 20 ms.
    ///
    /// # Errors
    ///
    /// If the rules compiled into the program cannot be decoded.
    pub fn new() -> Result<Self, LoadError> {
        Ok(Self {
            buckets: Buckets::load()?,
            text_rules: load_text_rules()?,
            all_rules: OnceLock::new(),
        })
    }

    /// Loads everything that a detection may load later, and evaluates the rules on meaningless bytes, so that processes that
    /// are forked from this one share the automata of regular expressions.
    pub fn preload(&self) {
        self.all_rules();
        for first in 0..16 {
            let _meaningless = self.detect_bytes(&noise(first));
        }
        for bytes in [&b"text of no meaning\n"[..], b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x64"] {
            let _meaningless = self.detect_bytes(bytes);
        }
    }

    /// Returns the type of a file of `size` bytes. `read_at` reads bytes at an offset and returns their number, which is 0
    /// only at the end of the file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    ///
    /// # Panics
    ///
    /// If `pure-magic` panics.
    pub fn detect(
        &self,
        size: u64,
        read_at: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<MediaType> {
        let read = |offset, len| read_exact_at(&read_at, offset, len);
        let head = read(0, usize::try_from(size).unwrap_or(HEAD_LEN).min(HEAD_LEN))?;
        let tail_offset = (head.len() as u64).max(size.saturating_sub(TAIL_LEN as u64));
        let tail = read(tail_offset, TAIL_LEN)?;
        Ok(self.detect_type(LimitedReader::new(&head, &tail, size), read))
    }

    /// Returns the type of a file with this content.
    ///
    /// # Panics
    ///
    /// If `pure-magic` panics.
    #[must_use]
    pub fn detect_bytes(&self, bytes: &[u8]) -> MediaType {
        let head = bytes.get(..HEAD_LEN).unwrap_or(bytes);
        let tail = bytes.get(head.len().max(bytes.len().saturating_sub(TAIL_LEN))..);
        let reader = LimitedReader::new(head, tail.unwrap_or_default(), bytes.len() as u64);
        let read_at = |offset, len| {
            let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
            let rest = rest.unwrap_or_default();
            Ok(rest.get(..len).unwrap_or(rest).to_vec())
        };
        self.detect_type(reader, read_at)
    }

    fn detect_type(
        &self,
        reader: LimitedReader<'_>,
        read_at: impl Fn(u64, usize) -> io::Result<Vec<u8>>,
    ) -> MediaType {
        // As libmagic, which looks at no file of one byte.
        if reader.size < 2 {
            return MediaType::from_rule(UNKNOWN);
        }
        // No rule tests for a byte order mark, and many rules test the beginning of the file.
        let reader = reader.without_prefix(BYTE_ORDER_MARK);
        if let Some(name) = detect_json(reader.head, reader.size) {
            return MediaType::from_rule(name);
        }
        let text = decode_text(reader.head);
        if text.is_some() && is_csv(reader.head) {
            return MediaType::from_rule("text/csv");
        }
        let (kind, len) = match text {
            Some(_) => (ContentKind::Text, TEXT_LEN),
            None => (ContentKind::Binary, HEAD_LEN),
        };
        let mut name = self.evaluate(reader.with_max_head(len), kind);
        if matches!(&*name, UNKNOWN | PLAIN_TEXT) {
            name = text.map_or_else(|| UNKNOWN.into(), |text| self.evaluate_text(&text));
        }
        MediaType::from_rule(correct(&name, reader.head, reader.size, read_at))
    }

    /// Evaluates the rules for all files. Returns [`UNKNOWN`] or [`PLAIN_TEXT`] if none matches, and if the read budget is
    /// used up.
    fn evaluate(&self, reader: LimitedReader<'_>, kind: ContentKind) -> String {
        // After a panic in a bucket, all rules are evaluated. Unwind safety: `pure-magic` has no unsafe code, and of the
        // borrowed rules only the caches of regular expressions change, which support this.
        let from_buckets =
            catch_unwind(AssertUnwindSafe(|| self.buckets.first_match(reader, kind)));
        // Buckets also evaluate rules after the first match, so they may use up the read budget where all rules in
        // order would not. Then all rules are evaluated with the full budget: a type must not depend on the order of
        // evaluation.
        from_buckets.ok().flatten().unwrap_or_else(|| first_match(self.all_rules(), reader, kind))
    }

    /// Evaluates the rules for texts, as libmagic does if no other rule yields a type: on the text in UTF-8.
    fn evaluate_text(&self, text: &str) -> String {
        let reader = LimitedReader::new(text.as_bytes(), &[], text.len() as u64);
        // As a binary file, so that an expression may match several lines.
        match first_match(Some(&self.text_rules), reader, ContentKind::Binary) {
            name if name == UNKNOWN => PLAIN_TEXT.to_owned(),
            name => name,
        }
    }

    pub(crate) fn all_rules(&self) -> Option<&MagicDb> {
        // Decoding does not fail: the tests decode the same rules.
        self.all_rules.get_or_init(|| load_all().ok()).as_ref()
    }
}

#[cfg(test)]
impl Detector {
    /// Evaluates these rules, without buckets.
    pub(crate) fn from_rules(rules: MagicDb, text_rules: MagicDb) -> Self {
        Self { buckets: Buckets::default(), text_rules, all_rules: OnceLock::from(Some(rules)) }
    }

    pub(crate) fn text_rules(&self) -> &MagicDb {
        &self.text_rules
    }

    pub(crate) fn has_loaded_all_rules(&self) -> bool {
        self.all_rules.get().is_some()
    }
}

/// Returns pseudo-random bytes (xorshift) after this one, which selects the bucket.
fn noise(first: u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![first];
    while bytes.len() < PRELOADED {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

/// Returns the type of the first matching rule with a message; [`UNKNOWN`] also if the read budget is used up.
fn first_match(rules: Option<&MagicDb>, reader: LimitedReader<'_>, kind: ContentKind) -> String {
    let mut reader = reader.as_kind(kind);
    let first = catch_unwind(AssertUnwindSafe(|| {
        let first = rules?.first_magic(&mut reader, None).ok()?;
        Some(first.mime_type().to_owned())
    }));
    match first {
        Ok(first) => first,
        Err(payload) if payload.is::<BudgetExceeded>() => None,
        // A defect, not a file of unknown type.
        Err(payload) => resume_unwind(payload),
    }
    .unwrap_or_else(|| UNKNOWN.to_owned())
}

/// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
fn read_exact_at(
    read_at: &impl Fn(&mut [u8], u64) -> io::Result<usize>,
    offset: u64,
    len: usize,
) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read_at(rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

//! The detection of a file's type.

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
};

use parking_lot::Mutex;
use pure_magic::{Magic, MagicDb};

use crate::{
    buckets::Buckets,
    corrections::correct,
    limited_reader::{HEAD_LEN, LimitedReader, TAIL_LEN},
    media_type::{ADDED_BY_MAGIC_DB, MediaType, PLAIN_TEXT, UNKNOWN, is_older_name, normalize},
    rules::{LoadError, load_all, type_names},
    text::{TEXT_LEN, count_columns, decode_text, detect_long_json, starts_like_json},
};

/// UTF-8 byte order mark.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Detects types of files. Uses about 7 MiB of memory, and twice as much once all rules have been loaded.
pub struct Detector {
    buckets: Buckets,
    /// All rules in one database, loaded when the first file needs them: mainly music with a leading tag, and texts
    /// that look like a table with two columns.
    all_rules: OnceLock<Option<MagicDb>>,
    /// Normalized names of all types, computed on first use.
    type_names: OnceLock<HashSet<String>>,
    /// Types detected so far, shared because users of this crate keep the types of many files. Bounded by the number of
    /// types in the rules.
    interned: Mutex<HashSet<MediaType>>,
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
            all_rules: OnceLock::new(),
            type_names: OnceLock::new(),
            interned: Mutex::default(),
        })
    }

    /// Loads the rules on a blocking thread of the Tokio runtime.
    ///
    /// # Errors
    ///
    /// As for [`Detector::new`].
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn load() -> Result<Self, LoadError> {
        let loaded = tokio::task::spawn_blocking(Self::new).await;
        loaded.map_err(|error| LoadError(error.to_string())).flatten()
    }

    /// Returns the type of a file. Blocks while it reads. Does not move the file's position.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn detect(&self, file: &File) -> io::Result<MediaType> {
        let size = file.metadata()?.len();
        let head = read_file_at(file, 0, usize::try_from(size).unwrap_or(HEAD_LEN).min(HEAD_LEN))?;
        let tail_offset = (head.len() as u64).max(size.saturating_sub(TAIL_LEN as u64));
        let tail = read_file_at(file, tail_offset, TAIL_LEN)?;
        let reader = LimitedReader::new(&head, &tail, size);
        let read_at = |offset, len| read_file_at(file, offset, len);
        Ok(self.intern(self.detect_type(reader, read_at)))
    }

    /// Returns the type of a file with this content.
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
        self.intern(self.detect_type(reader, read_at))
    }

    /// Returns whether some file can have this type, under its current or an older name. Ignores case and parameters.
    ///
    /// The first call takes longer, because it decodes all rules.
    #[must_use]
    pub fn can_detect(&self, name: &str) -> bool {
        let name = normalize(name);
        // The decoded rules are not kept: they are needed only for their names.
        let names =
            self.type_names.get_or_init(|| load_all().as_ref().map(type_names).unwrap_or_default());
        names.contains(&name) || is_older_name(&name)
    }

    /// Returns a value equal to `detected` that shares its memory with the equal values returned earlier.
    fn intern(&self, detected: MediaType) -> MediaType {
        let mut interned = self.interned.lock();
        if let Some(shared) = interned.get(&detected) {
            return shared.clone();
        }
        interned.insert(detected.clone());
        detected
    }

    fn detect_type(
        &self,
        reader: LimitedReader<'_>,
        read_at: impl Fn(u64, usize) -> io::Result<Vec<u8>>,
    ) -> MediaType {
        if reader.head.is_empty() {
            return MediaType::from_rule(UNKNOWN);
        }
        // No rule tests for a byte order mark, and many rules test the beginning of the file.
        let reader = reader.without_prefix(BYTE_ORDER_MARK);
        if let Some(name) = detect_long_json(reader.head, reader.size) {
            return MediaType::from_rule(name);
        }

        let text = decode_text(reader.head);
        let is_text = text.is_some() || starts_like_json(reader.head);
        let reader = reader.with_max_head(if is_text { TEXT_LEN } else { HEAD_LEN });
        let mut name = self.evaluate(reader);
        if matches!(&*name, UNKNOWN | PLAIN_TEXT) {
            name = match text {
                // The rules have been evaluated on this text.
                Some(Cow::Borrowed(_)) => PLAIN_TEXT.into(),
                // libmagic also evaluates the rules for texts on texts in encodings other than UTF-8; `pure-magic`
                // does not.
                Some(Cow::Owned(text)) => {
                    let reader = LimitedReader::new(text.as_bytes(), &[], text.len() as u64);
                    match self.evaluate(reader) {
                        name if name == UNKNOWN => PLAIN_TEXT.into(),
                        name => name,
                    }
                }
                None => UNKNOWN.into(),
            };
        }
        MediaType::from_rule(correct(&name, reader.head, read_at))
    }

    /// Evaluates the rules. Returns [`UNKNOWN`] if `pure-magic` fails or the read budget is used up.
    fn evaluate(&self, reader: LimitedReader<'_>) -> String {
        // A panic in `pure-magic` must not fail the request. Unwind safety: it has no unsafe code, and of the borrowed
        // rules only the caches of regular expressions change, which support this.
        catch_unwind(AssertUnwindSafe(|| {
            let first = self.first_match(reader)?;
            // Since 5.45, `file` requires three columns in a CSV file; prose with a comma in each line has two.
            let is_narrow = count_columns(reader.head) < 3;
            let is_excluded =
                |name: &str| ADDED_BY_MAGIC_DB.contains(&name) || is_narrow && name == "text/csv";
            if !is_excluded(&first) {
                return Some(first);
            }
            let matches = self.all_rules()?.all_magics(&mut reader.clone()).ok()?;
            let next = matches
                .iter()
                .map(Magic::mime_type)
                .find(|name| !is_excluded(name) && !matches!(*name, UNKNOWN | PLAIN_TEXT));
            Some(next.unwrap_or(PLAIN_TEXT).to_owned())
        }))
        .ok()
        .flatten()
        .unwrap_or_else(|| UNKNOWN.to_owned())
    }

    /// Returns the type of the first matching rule with a message, or `None` if `pure-magic` fails.
    fn first_match(&self, reader: LimitedReader<'_>) -> Option<String> {
        // Buckets also evaluate rules after the first match, so they may use up the read budget where all rules in
        // order would not. Then all rules are evaluated with the full budget: a type must not depend on the order of
        // evaluation.
        let from_buckets = catch_unwind(AssertUnwindSafe(|| self.buckets.first_match(reader)));
        from_buckets.ok().flatten().or_else(|| {
            let first = self.all_rules()?.first_magic(&mut reader.clone(), None).ok()?;
            Some(first.mime_type().to_owned())
        })
    }

    pub(crate) fn all_rules(&self) -> Option<&MagicDb> {
        // Decoding does not fail: the tests decode the same rules.
        self.all_rules.get_or_init(|| load_all().ok()).as_ref()
    }
}

#[cfg(test)]
impl Detector {
    /// Evaluates these rules, without buckets.
    pub(crate) fn from_rules(rules: MagicDb) -> Self {
        Self {
            buckets: Buckets::default(),
            all_rules: OnceLock::from(Some(rules)),
            type_names: OnceLock::new(),
            interned: Mutex::default(),
        }
    }

    pub(crate) fn has_loaded_all_rules(&self) -> bool {
        self.all_rules.get().is_some()
    }
}

/// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
fn read_file_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

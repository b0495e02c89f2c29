//! Collects lists and prepares them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
};

use crate::{
    entry::{FileDigest, HashEntry, ListAction},
    error::{FileProblem, HashListError, LineProblem},
    key::{ALLOW_KEY, BLOCK_KEY, BlockClass, BlockClasses, block_key},
    layout::{HEADER, HeaderCounts, Layout, SectionDigests, encode_header},
    limits::{MAX_ENTRIES, MAX_LIST_NAME},
    list_file::read_file,
    list_reader::{EntryCounts, EntrySink, ReadError},
    unsorted_table::{ListAppender, UnsortedTable, cut},
};

/// Collects entries of files and entries from code, and prepares them for lookups.
#[derive(Debug)]
pub struct HashListBuilder {
    /// Names of the lists.
    lists: Vec<String>,
    block: UnsortedTable<BLOCK_KEY>,
    allow: UnsortedTable<ALLOW_KEY>,
    classes: BlockClasses,
    /// Names of entries.
    text: String,
}

/// Result of reading a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListSummary {
    /// Name of the list; of a file, its name without directories.
    pub list: String,
    /// Number of entries that are used, including duplicates.
    pub used: u64,
    /// Number of all entries: also those for the empty file, which block lists ignore, and in databases of `ClamAV` all
    /// signatures of any kind.
    pub total: u64,
}

impl Default for HashListBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl HashListBuilder {
    /// Creates a builder without lists.
    #[must_use]
    pub fn new() -> Self {
        Self::with_max_entries(MAX_ENTRIES)
    }

    /// `max_entries`: maximum number of block entries, and of allow entries.
    pub(crate) fn with_max_entries(max_entries: usize) -> Self {
        Self {
            lists: Vec::new(),
            block: UnsortedTable::new(max_entries),
            allow: UnsortedTable::new(max_entries),
            classes: BlockClasses::default(),
            text: String::new(),
        }
    }

    /// Adds a list file. A file that starts with the header of a `ClamAV` database is one. Otherwise the extensions `.hdb`
    /// and `.hsb` mean records of `ClamAV`, and other files are text lists.
    ///
    /// # Errors
    /// If the file cannot be read, if one of its lines is invalid, or if a limit is exceeded. The builder then has no
    /// entry of the file.
    pub fn add_file(
        &mut self,
        action: ListAction,
        path: &Path,
    ) -> Result<ListSummary, HashListError> {
        let unreadable = |source| HashListError::Unreadable { path: path.to_owned(), source };
        let invalid_file = |problem| HashListError::InvalidFile { path: path.to_owned(), problem };
        // Opening a pipe would block.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(invalid_file(FileProblem::NotRegular));
        }
        let file = File::open(path).map_err(unreadable)?;
        let reader = BufReader::with_capacity(64 << 10, file);
        let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        self.add_reader(action, &name, reader).map_err(|error| match error {
            ReadError::Io(source) => unreadable(source),
            ReadError::File(problem) => invalid_file(problem),
            ReadError::Line { member, line, problem } => {
                HashListError::InvalidLine { path: path.to_owned(), member, line, problem }
            }
            ReadError::TooManyLists => HashListError::TooManyLists,
        })
    }

    /// Adds a list file with this name and content.
    pub(crate) fn add_reader(
        &mut self,
        action: ListAction,
        name: &str,
        reader: impl BufRead,
    ) -> Result<ListSummary, ReadError> {
        self.add_list(action, name, |sink| read_file(action, name, reader, sink))
    }

    /// Adds entries from code as a list with this name.
    ///
    /// # Errors
    /// If an entry is invalid, or if a limit is exceeded. The builder then has no entry of the list.
    pub fn add_entries<'a>(
        &mut self,
        action: ListAction,
        name: &str,
        entries: impl IntoIterator<Item = HashEntry<'a>>,
    ) -> Result<ListSummary, HashListError> {
        let read = |sink: &mut dyn EntrySink| {
            let mut counts = EntryCounts::default();
            for entry in entries {
                let added = sink.add(&entry);
                counts.count(added.as_ref().is_ok_and(|is_used| *is_used));
                let line = counts.total;
                added.map_err(|problem| ReadError::Line { member: None, line, problem })?;
            }
            Ok(counts)
        };
        self.add_list(action, name, read).map_err(|error| match error {
            ReadError::Line { line: number, problem, .. } => {
                HashListError::InvalidEntry { list: name.to_owned(), number, problem }
            }
            _ => HashListError::TooManyLists,
        })
    }

    /// Adds the entries that `read` passes to a sink, or none if it fails.
    fn add_list(
        &mut self,
        action: ListAction,
        name: &str,
        read: impl FnOnce(&mut dyn EntrySink) -> Result<EntryCounts, ReadError>,
    ) -> Result<ListSummary, ReadError> {
        let list = u16::try_from(self.lists.len()).map_err(|_| ReadError::TooManyLists)?;
        let result = match action {
            ListAction::Block => {
                let appender = ListAppender::new(&mut self.block, &mut self.text, list);
                let mut sink = BlockSink { appender, classes: self.classes };
                let result = read(&mut sink);
                match &result {
                    Ok(_) => self.classes = sink.classes,
                    Err(_) => sink.appender.undo(),
                }
                result
            }
            ListAction::Allow => {
                let appender = ListAppender::new(&mut self.allow, &mut self.text, list);
                let mut sink = AllowSink { appender };
                let result = read(&mut sink);
                if result.is_err() {
                    sink.appender.undo();
                }
                result
            }
        };
        let EntryCounts { used, total } = result?;
        let list = cut(name, MAX_LIST_NAME).to_owned();
        self.lists.push(list.clone());
        Ok(ListSummary { list, used, total })
    }

    /// Sorts and merges the entries. Returns the prepared form, for
    /// [`HashLists::from_prepared`](crate::HashLists::from_prepared). Needs twice the memory of the result.
    ///
    /// # Errors
    /// If the result exceeds the address space.
    pub fn prepare(self) -> Result<Vec<u8>, HashListError> {
        let Self { lists, block, allow, classes, mut text } = self;
        let (block, allow) = (block.sort(), allow.sort());
        let mut places = Vec::new();
        for list in &lists {
            places.extend((text.len() as u64).to_le_bytes());
            places.extend((list.len() as u64).to_le_bytes());
            text.push_str(list);
        }
        let counts = HeaderCounts {
            classes,
            block: block.counts(),
            allow: allow.counts(),
            lists: lists.len() as u64,
            text: text.len() as u64,
        };
        let layout = Layout::new(&counts).ok_or(HashListError::TooLarge)?;
        let mut prepared = Vec::with_capacity(layout.text.end);
        prepared.resize(HEADER, 0);
        block.encode(&mut prepared);
        allow.encode(&mut prepared);
        prepared.extend(places);
        prepared.extend(text.as_bytes());
        let header = encode_header(counts, &SectionDigests::compute(&prepared, &layout));
        prepared.iter_mut().zip(header).for_each(|(target, byte)| *target = byte);
        Ok(prepared)
    }
}

/// Adds block entries.
struct BlockSink<'a> {
    appender: ListAppender<'a, BLOCK_KEY>,
    classes: BlockClasses,
}

impl EntrySink for BlockSink<'_> {
    /// Ignores the empty file, which public lists contain by mistake, and many archives.
    fn add(&mut self, entry: &HashEntry<'_>) -> Result<bool, LineProblem> {
        let HashEntry { digest, size, name } = entry;
        if digest.is_of_empty_file() {
            return Ok(false);
        }
        let key = block_key(digest, *size);
        self.appender.add(key, name).map_err(|_| LineProblem::TooManyEntries)?;
        self.classes.insert(BlockClass::new(digest.kind(), size.is_some()));
        Ok(true)
    }
}

/// Adds allow entries.
struct AllowSink<'a> {
    appender: ListAppender<'a, ALLOW_KEY>,
}

impl EntrySink for AllowSink<'_> {
    fn add(&mut self, entry: &HashEntry<'_>) -> Result<bool, LineProblem> {
        let FileDigest::Sha256(key) = entry.digest else { return Err(LineProblem::NotAllowable) };
        self.appender.add(key, &entry.name).map_err(|_| LineProblem::TooManyEntries)?;
        Ok(true)
    }
}

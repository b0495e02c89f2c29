//! Lists of hashes, prepared once and shared by processes.

use std::{
    borrow::Cow,
    ffi::OsStr,
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use mcs_hashlist::{
    Digests, HashListBuilder, HashListError, HashLists, HashMatch, ListAction, ListSummary,
    PreparedListsError,
};
use mcs_sandbox::SealedMapping;

/// Lists of hashes of files that are blocked or allowed, in sealed memory. Clones share it.
#[derive(Clone)]
pub struct HashListSet {
    lists: Arc<HashLists<SealedMapping>>,
    prepared: Arc<File>,
}

/// Reason why lists cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HashListLoadError {
    /// A file cannot be used.
    #[error(transparent)]
    List(#[from] HashListError),
    /// The prepared lists cannot be kept in memory.
    #[error("cannot keep the hash lists in memory")]
    Memory(#[source] io::Error),
    /// The prepared lists are of another version, or damaged.
    #[error(transparent)]
    Prepared(#[from] PreparedListsError),
}

impl HashListLoadError {
    /// Returns the file that cannot be used.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::List(
                HashListError::Unreadable { path, .. }
                | HashListError::InvalidFile { path, .. }
                | HashListError::InvalidLine { path, .. },
            ) => Some(path),
            Self::List(
                HashListError::InvalidEntry { .. }
                | HashListError::TooManyLists
                | HashListError::TooLarge,
            )
            | Self::Memory(_)
            | Self::Prepared(_) => None,
        }
    }
}

impl HashListSet {
    /// Reads and prepares the lists of files. Returns what is used of each file. For a database of `ClamAV` that does not
    /// exist, the one with the other extension (`.cvd`, `.cld`) is read. Blocking.
    ///
    /// # Errors
    /// If a file cannot be read, or has an invalid line.
    pub fn load(
        block: &[PathBuf],
        allow: &[PathBuf],
    ) -> Result<(Self, Vec<ListSummary>), HashListLoadError> {
        let mut builder = HashListBuilder::new();
        let blocked = block.iter().map(|path| (path, ListAction::Block));
        let files = blocked.chain(allow.iter().map(|path| (path, ListAction::Allow)));
        let summaries: Result<_, _> =
            files.map(|(path, action)| builder.add_file(action, &current(path))).collect();
        let summaries = summaries?;
        let prepared = mcs_sandbox::sealed("hashes", &builder.prepare()?);
        Ok((Self::from_sealed(prepared.map_err(HashListLoadError::Memory)?)?, summaries))
    }

    /// Uses prepared lists in sealed memory, see [`prepared`](Self::prepared).
    ///
    /// # Errors
    /// If the file is not sealed, or does not contain prepared lists of this version.
    pub fn from_sealed(prepared: File) -> Result<Self, HashListLoadError> {
        let mapping = SealedMapping::new(&prepared).map_err(HashListLoadError::Memory)?;
        let lists = HashLists::from_prepared(mapping)?;
        Ok(Self { lists: Arc::new(lists), prepared: Arc::new(prepared) })
    }

    /// Returns the sealed file with the prepared lists.
    #[must_use]
    pub fn prepared(&self) -> &File {
        &self.prepared
    }

    /// Finds the entry for a whole file by its SHA-256. Entries with other digests need an evaluation.
    #[must_use]
    pub fn lookup(&self, sha256: &[u8; 32]) -> Option<HashMatch<'_>> {
        // The size is used with other digests only.
        self.lists.lookup(&Digests { sha256: *sha256, sha1: None, md5: None, size: 0 })
    }

    /// Returns a digest of all entries, independent of their names and order.
    #[must_use]
    pub fn digest(&self) -> [[u8; 32]; 2] {
        [self.lists.block_fingerprint(), self.lists.allow_fingerprint()]
    }

    /// Returns the number of different blocked hashes.
    #[must_use]
    pub fn block_entries(&self) -> u64 {
        self.lists.block_entries()
    }

    pub(crate) fn lists(&self) -> &HashLists<SealedMapping> {
        &self.lists
    }
}

/// Returns the file of this database that exists: freshclam replaces a `.cvd` by a `.cld`, and the other way around.
fn current(path: &Path) -> Cow<'_, Path> {
    let other = match path.extension().and_then(OsStr::to_str) {
        Some("cvd") => path.with_extension("cld"),
        Some("cld") => path.with_extension("cvd"),
        _ => return Cow::Borrowed(path),
    };
    if !path.exists() && other.exists() { Cow::Owned(other) } else { Cow::Borrowed(path) }
}

/// Sets with the same entries are equal, whatever their names are.
impl PartialEq for HashListSet {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl Eq for HashListSet {}

impl fmt::Debug for HashListSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |digest: [u8; 32]| {
            let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
            format!("{:016x}", u64::from_be_bytes(*first))
        };
        let [block, allow] = self.digest().map(short);
        let (blocked, allowed) = (self.lists.block_entries(), self.lists.allow_entries());
        write!(f, "{blocked} blocked ({block}), {allowed} allowed ({allow})")
    }
}

//! Digest of the sources of rules. Unlike the prepared form, which depends on the engine's version, it is the same in all
//! builds, so that what the rules have found stays known.

use std::{
    fs,
    path::{Path, PathBuf},
};

use boreal_parser::{file::YaraFileComponent, parse};
use sha2::{Digest as _, Sha256};

use crate::{error::RuleLoadError, unpack::VERSION};

/// Changed when the digest of the same sources is computed in another way.
const FORMAT: &[u8] = b"rules 1\n";

/// Maximum depth of nested includes.
const MAX_DEPTH: usize = 64;

/// Maximum number of files, includes included.
const MAX_FILES: usize = 100_000;

/// Returns the digest of rule files in their order, each followed by those that it includes, and of the version of the code
/// that unpacks files: the same rules may match other objects after a change of that code.
///
/// # Errors
/// If a file cannot be read or parsed, or files are nested too deeply.
pub(crate) fn digest(files: &[PathBuf]) -> Result<[u8; 32], RuleLoadError> {
    let hash = Sha256::new().chain_update(FORMAT).chain_update(VERSION.to_le_bytes());
    let mut sources = SourceHasher { hash, files: 0 };
    sources.hash.update((files.len() as u64).to_le_bytes());
    for file in files {
        sources.add(file, 0)?;
    }
    Ok(sources.hash.finalize().into())
}

struct SourceHasher {
    hash: Sha256,
    files: usize,
}

impl SourceHasher {
    /// Adds a file, then the files that it includes. The content of a file determines their number.
    fn add(&mut self, path: &Path, depth: usize) -> Result<(), RuleLoadError> {
        self.files += 1;
        if depth > MAX_DEPTH || self.files > MAX_FILES {
            return Err(RuleLoadError::TooDeep(path.to_owned()));
        }
        let unreadable = |source| RuleLoadError::Unreadable { path: path.to_owned(), source };
        let content = fs::read_to_string(path).map_err(unreadable)?;
        self.hash.update((content.len() as u64).to_le_bytes());
        self.hash.update(content.as_bytes());
        let parsed = parse(&content).map_err(|_| RuleLoadError::Changed)?;
        for component in parsed.components {
            if let YaraFileComponent::Include(include) = component {
                // The compiler also resolves paths relative to the including file.
                let target = path.parent().unwrap_or(path).join(include.path);
                let target = target.canonicalize().map_err(unreadable)?;
                self.add(&target, depth + 1)?;
            }
        }
        Ok(())
    }
}

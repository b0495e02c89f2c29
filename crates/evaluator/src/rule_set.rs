//! Finds, reads and compiles rules, and prepares them for evaluators.
//!
//! Reference of the language:
//! <https://yara.readthedocs.io/en/stable/writingrules.html>

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use boreal::{Scanner, compiler::CompilerParams, scanner::ScanParams};

use crate::{
    compiler::{invalid, namespace, new_compiler, used_variables},
    error::RuleLoadError,
    metadata::{rule_kind, rule_scope},
    prepared::{encode, is_restorable},
    sources,
    split::{find_unrestorable, fits, split},
    variables::Variables,
};

/// File name extensions of rule files in directories.
const EXTENSIONS: [&str; 2] = ["yar", "yara"];

/// Maximum depth of nested directories.
const MAX_DEPTH: usize = 16;

/// Maximum number of matches of one string in one file, which bounds memory. The evaluation fails above this limit,
/// because a condition on offsets could miss the relevant match.
///
/// The engine reports the limit only for strings with fixed bytes to search for, and silently truncates the matches of
/// other strings. If a rule has such a string, only the limits of the sandbox apply.
const MAX_MATCHES: u32 = 250_000;

/// The engine's name for the matching algorithm of strings without fixed bytes to search for.
const WITHOUT_FIXED_BYTES: &str = "Raw";

/// Compiled rules. Cheap to clone.
#[derive(Clone)]
pub struct RuleSet {
    prepared: Arc<[u8]>,
    names: Arc<BTreeSet<String>>,
    uses_file_type: bool,
    digest: [u8; 32],
}

impl RuleSet {
    /// Reads rule files, and all files `*.yar` and `*.yara` below directories, in the order of their names. Each file,
    /// with its includes, has its own namespace, so several files may use the same names.
    ///
    /// # Errors
    /// Returns the first error.
    pub fn load(paths: &[PathBuf]) -> Result<Self, RuleLoadError> {
        let mut all_files = Vec::new();
        for path in paths {
            let mut files = Vec::new();
            collect(path, 0, &mut files)?;
            if files.is_empty() {
                return Err(RuleLoadError::Empty(path.clone()));
            }
            all_files.append(&mut files);
        }
        // Of an invalid file, the compiler gives the better reason.
        let before = sources::digest(&all_files);
        let (whole, max_matches) = compile(&all_files)?;
        check_metadata(&whole, &all_files)?;
        let public = whole.rules().filter(|rule| !rule.is_private);
        let names: BTreeSet<_> = public.map(|rule| rule.name.to_owned()).collect();
        if let (true, Some(path)) = (names.is_empty(), paths.first()) {
            return Err(RuleLoadError::Empty(path.clone()));
        }
        let mut parts = if fits(&whole) { vec![whole] } else { split(&all_files, &whole)? };
        // Conditions need the offsets of matches; matching bytes are not kept.
        let params = ScanParams::default().match_max_length(0).string_max_nb_matches(max_matches);
        for part in &mut parts {
            part.set_scan_params(params.clone());
            if !is_restorable(part).map_err(RuleLoadError::Serialization)? {
                return Err(unrestorable(&all_files, part));
            }
        }
        let Variables { position, file_type } = used_variables(&all_files);
        let prepared = encode(&parts, position).map_err(RuleLoadError::Serialization)?;
        let digest = sources::digest(&all_files)?;
        if before.ok() != Some(digest) {
            return Err(RuleLoadError::Changed);
        }
        let (prepared, names) = (prepared.into(), Arc::new(names));
        Ok(Self { prepared, names, uses_file_type: file_type, digest })
    }

    /// Returns the prepared form of the rules, which evaluators read from standard input.
    #[must_use]
    pub fn prepared(&self) -> &[u8] {
        &self.prepared
    }

    /// Returns the names of all rules that can be reported, that is, of those that are not private.
    #[must_use]
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Returns whether rules use the variable `filetype`, the name of the media type.
    #[must_use]
    pub fn uses_file_type(&self) -> bool {
        self.uses_file_type
    }

    /// Returns the SHA-256 digest of the sources, includes included, and of the version of the code that unpacks files.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl PartialEq for RuleSet {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for RuleSet {}

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleSet({} rules, {:02x?})", self.names.len(), self.digest)
    }
}

/// Compiles rule files. Returns the rules, and the maximum number of matches of one string.
fn compile(files: &[PathBuf]) -> Result<(Scanner, u32), RuleLoadError> {
    let mut compiler = new_compiler();
    compiler.set_params(CompilerParams::default().compute_statistics(true));
    let mut max_matches = MAX_MATCHES;
    for (index, file) in files.iter().enumerate() {
        let added =
            compiler.add_rules_file_in_namespace(file, namespace(index)).map_err(invalid)?;
        let mut strings = added.statistics().flat_map(|rule| &rule.strings);
        if strings.any(|string| string.matching_algo == WITHOUT_FIXED_BYTES) {
            max_matches = u32::MAX;
        }
    }
    Ok((compiler.finalize(), max_matches))
}

/// Returns the path of the file whose rules are in this namespace.
fn path_of(namespace: &str, files: &[PathBuf]) -> PathBuf {
    let index: Option<usize> = namespace.parse().ok();
    index.and_then(|index| files.get(index)).cloned().unwrap_or_default()
}

/// Checks the kinds and scopes of all rules, private ones included.
fn check_metadata(scanner: &Scanner, files: &[PathBuf]) -> Result<(), RuleLoadError> {
    for rule in scanner.rules() {
        let (path, name) = (|| path_of(rule.namespace, files), || rule.name.to_owned());
        rule_kind(scanner, rule.metadatas).map_err(|kind| RuleLoadError::UnknownKind {
            path: path(),
            rule: name(),
            kind,
        })?;
        rule_scope(scanner, rule.metadatas).map_err(|scope| RuleLoadError::UnknownScope {
            path: path(),
            rule: name(),
            scope,
        })?;
    }
    Ok(())
}

/// Returns an error that names the rule of this part that the engine does not restore.
fn unrestorable(files: &[PathBuf], part: &Scanner) -> RuleLoadError {
    let namespaces: BTreeSet<_> = part.rules().map(|rule| rule.namespace).collect();
    let mut last = PathBuf::new();
    for (index, path) in files.iter().enumerate() {
        if !namespaces.contains(namespace(index).as_str()) {
            continue;
        }
        match find_unrestorable(path, |scanner| is_restorable(scanner).unwrap_or(false)) {
            Ok(Some(rule)) => return RuleLoadError::Unrestorable { path: path.clone(), rule },
            Ok(None) => last.clone_from(path),
            Err(error) => return error,
        }
    }
    RuleLoadError::UnrestorableFile(last)
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), RuleLoadError> {
    if depth > MAX_DEPTH {
        return Err(RuleLoadError::TooDeep(path.to_owned()));
    }
    let unreadable = |source| RuleLoadError::Unreadable { path: path.to_owned(), source };
    let is_rule_file = || {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| {
            EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
        })
    };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        // A file that is configured by its path may have any extension.
        if depth == 0 || is_rule_file() {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries: Vec<_> =
        entries.map_err(unreadable)?.into_iter().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries {
        let hidden =
            entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden {
            collect(&entry, depth + 1, files)?;
        }
    }
    Ok(())
}

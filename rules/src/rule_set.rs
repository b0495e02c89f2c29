//! The rules of an operator: found, read, compiled, and prepared for evaluators, which load them without compiling.
//! <https://yara.readthedocs.io/en/stable/writingrules.html>

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use boreal::{
    Compiler, Scanner,
    compiler::{CompilerBuilder, CompilerParams},
    module::Console,
    scanner::{DeserializeParams, ScanParams},
};
use sha2::{Digest, Sha256};

/// What rule files are called.
const EXTENSIONS: [&str; 2] = ["yar", "yara"];

/// Directories in directories that are looked into.
const MAX_DEPTH: usize = 16;

/// Variables that public rules ask for, and that a scanner of disks knows. Here a media has no name: they are empty.
const VARIABLES: [&str; 5] = ["filename", "filepath", "extension", "filetype", "owner"];

/// Who prepared the rules: the form is the engine's own, and another version of it would read something else. A test holds
/// it against the lock file.
pub(crate) const PREPARED_BY: &[u8] = b"mcs-rules 0.1.0, boreal 1.4.0\n";

/// How often one string may be found in one media, so that memory is bounded; beyond it there is no verdict, since a
/// condition about places might miss the one that counts.
///
/// The engine tells of it for strings with fixed bytes to look for, and cuts the others off in silence: where a rule has
/// one of these, the sandbox's limits alone bound all of them.
const MAX_MATCHES: u32 = 250_000;

/// What the engine calls a string without fixed bytes to look for.
const WITHOUT_FIXED_BYTES: &str = "Raw";

/// Compiled rules. Cheap to clone.
#[derive(Clone)]
pub struct RuleSet {
    prepared: Arc<[u8]>,
    names: Arc<BTreeSet<String>>,
    digest: [u8; 32],
}

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or a directory.
    #[error("{} cannot be read", path.display())]
    #[expect(missing_docs, reason = "the message says it")]
    Unreadable { path: PathBuf, source: io::Error },
    /// Deeper than any set of rules is.
    #[error("{} lies too deep in other directories", .0.display())]
    TooDeep(PathBuf),
    /// A rule that is none: file, line, column and reason, on one line.
    #[error("{0}")]
    Broken(String),
    /// No rule that could match.
    #[error("{} has no rule in it", .0.display())]
    Empty(PathBuf),
    /// The compiled rules cannot be written down.
    #[error("the rules cannot be prepared")]
    Unprepared(#[source] io::Error),
}

impl RuleSet {
    /// Reads files of rules, and all `*.yar` and `*.yara` below directories, in the order of their names. Each file has a
    /// name space of its own, so two may use the same names; what a file includes belongs to it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let mut compiler = compiler();
        let mut max_matches = MAX_MATCHES;
        for path in paths {
            let mut files = Vec::new();
            collect(path, 0, &mut files)?;
            if files.is_empty() {
                return Err(LoadError::Empty(path.clone()));
            }
            for file in files {
                let added = compiler
                    .add_rules_file_in_namespace(&file, file.to_string_lossy())
                    .map_err(|error| LoadError::Broken(one_line(&error.to_string())))?;
                let mut strings = added.statistics().flat_map(|rule| &rule.strings);
                if strings.any(|string| string.matching_algo == WITHOUT_FIXED_BYTES) {
                    max_matches = u32::MAX;
                }
            }
        }
        let mut scanner = compiler.finalize();
        // Where a string was found is enough, what was found is not kept.
        let params = ScanParams::default().match_max_length(0).string_max_nb_matches(max_matches);
        scanner.set_scan_params(params);
        let public = scanner.rules().filter(|rule| !rule.is_private);
        let names: BTreeSet<_> = public.map(|rule| rule.name.to_owned()).collect();
        if let (true, Some(path)) = (names.is_empty(), paths.first()) {
            return Err(LoadError::Empty(path.clone()));
        }
        let mut prepared = PREPARED_BY.to_vec();
        scanner.to_bytes(&mut prepared).map_err(LoadError::Unprepared)?;
        let digest = Sha256::digest(&prepared).into();
        Ok(Self { prepared: prepared.into(), names: Arc::new(names), digest })
    }

    /// What an evaluator is to be given, as a file.
    #[must_use]
    pub fn prepared(&self) -> &[u8] {
        &self.prepared
    }

    /// The names of all rules that can refuse a media.
    #[must_use]
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Changes when the rules do.
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

/// The rules of [`RuleSet::prepared`].
pub(crate) fn restored(prepared: &[u8]) -> io::Result<Scanner> {
    let Some(rules) = prepared.strip_prefix(PREPARED_BY) else {
        return Err(io::Error::other(
            "the rules were prepared by another version of this program: restart the service",
        ));
    };
    let mut params = DeserializeParams::default();
    params.add_module(console());
    Scanner::from_bytes_unchecked(rules, params)
}

fn compiler() -> Compiler {
    let mut compiler = CompilerBuilder::new().add_module(console()).build();
    compiler.set_params(CompilerParams::default().compute_statistics(true));
    for name in VARIABLES {
        compiler.define_symbol(name, "");
    }
    compiler
}

/// Public rules that tell what they saw tell it to nobody.
fn console() -> Console {
    Console::with_callback(|_line| {})
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    if depth > MAX_DEPTH {
        return Err(LoadError::TooDeep(path.to_owned()));
    }
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let is_rules = || {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|it| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(it)))
    };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        // One that is named counts whatever it is called.
        if depth == 0 || is_rules() {
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

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

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
    compiler::{AddRuleError, CompilerBuilder, CompilerParams},
    scanner::ScanParams,
};
use sha2::{Digest, Sha256};

use crate::{
    prepared::{console, encode, survives},
    split::{MAX_RULES, find_lost, fits, split},
};

/// What rule files are called.
const EXTENSIONS: [&str; 2] = ["yar", "yara"];

/// Directories in directories that are looked into.
const MAX_DEPTH: usize = 16;

/// Variables that public rules ask for, and that a scanner of disks knows. Here a media has no name: they are empty.
const VARIABLES: [&str; 5] = ["filename", "filepath", "extension", "filetype", "owner"];

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
    /// A rule that evaluators would load in part only.
    #[error(
        "{}: rule {rule}: the engine cannot load it completely, since a list in its condition has more than {MAX_RULES} members; \
         group operands of `and` and `or` in parentheses, as in (a or b) or (c or d), and divide other lists over several rules",
        path.display()
    )]
    #[expect(missing_docs, reason = "the message says it")]
    Lost { path: PathBuf, rule: String },
    /// Rules of which evaluators would load another set than was compiled.
    #[error("{}: the engine cannot load the rules of this file completely", .0.display())]
    LostSomewhere(PathBuf),
    /// A rule that cannot be in a part with all that it refers to.
    #[error(
        "{}: rule {rule}: its condition needs {needs} rules and imports of the file, global rules included, and the engine loads at \
         most {MAX_RULES} rules together; let the condition refer to fewer rules",
        path.display()
    )]
    #[expect(missing_docs, reason = "the message says it")]
    Entangled { path: PathBuf, rule: String, needs: usize },
    /// Files that were another text a moment later.
    #[error("files of rules have changed while they were read: try again")]
    Changed,
}

impl RuleSet {
    /// Reads files of rules, and all `*.yar` and `*.yara` below directories, in the order of their names. Each file has a
    /// name space of its own, so two may use the same names; what a file includes belongs to it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let mut compiler = compiler();
        compiler.set_params(CompilerParams::default().compute_statistics(true));
        let mut max_matches = MAX_MATCHES;
        let mut all_files = Vec::new();
        for path in paths {
            let mut files = Vec::new();
            collect(path, 0, &mut files)?;
            if files.is_empty() {
                return Err(LoadError::Empty(path.clone()));
            }
            for file in &files {
                let added = compiler
                    .add_rules_file_in_namespace(file, file.to_string_lossy())
                    .map_err(broken)?;
                let mut strings = added.statistics().flat_map(|rule| &rule.strings);
                if strings.any(|string| string.matching_algo == WITHOUT_FIXED_BYTES) {
                    max_matches = u32::MAX;
                }
            }
            all_files.extend(files);
        }
        let whole = compiler.finalize();
        let public = whole.rules().filter(|rule| !rule.is_private);
        let names: BTreeSet<_> = public.map(|rule| rule.name.to_owned()).collect();
        if let (true, Some(path)) = (names.is_empty(), paths.first()) {
            return Err(LoadError::Empty(path.clone()));
        }
        let mut parts = if fits(&whole) { vec![whole] } else { split(&all_files, &whole)? };
        // Where a string was found is enough, what was found is not kept.
        let params = ScanParams::default().match_max_length(0).string_max_nb_matches(max_matches);
        for part in &mut parts {
            part.set_scan_params(params.clone());
            if !survives(part).map_err(LoadError::Unprepared)? {
                return Err(lost(&all_files, part));
            }
        }
        let prepared = encode(&parts).map_err(LoadError::Unprepared)?;
        let digest = Sha256::digest(&prepared).into();
        Ok(Self { prepared: prepared.into(), names: Arc::new(names), digest })
    }

    /// Returns the form of the rules that evaluators read from standard input.
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

/// Names the rule that the engine does not restore from this part.
fn lost(files: &[PathBuf], part: &Scanner) -> LoadError {
    let namespaces: BTreeSet<_> = part.rules().map(|rule| rule.namespace).collect();
    let of_part = files.iter().filter(|file| namespaces.contains(&*file.to_string_lossy()));
    let mut last = PathBuf::new();
    for path in of_part {
        match find_lost(path, |scanner| survives(scanner).unwrap_or(false)) {
            Ok(Some(rule)) => return LoadError::Lost { path: path.clone(), rule },
            Ok(None) => last.clone_from(path),
            Err(error) => return error,
        }
    }
    LoadError::LostSomewhere(last)
}

pub(crate) fn compiler() -> Compiler {
    let mut compiler = CompilerBuilder::new().add_module(console()).build();
    for name in VARIABLES {
        compiler.define_symbol(name, "");
    }
    compiler
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn broken(error: AddRuleError) -> LoadError {
    LoadError::Broken(one_line(&error.to_string()))
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

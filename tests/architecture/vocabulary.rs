//! Words of the project's first language, which standard terms have replaced. The changelog, which names what was
//! renamed, and this file are not checked.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Former names in code.
const NAMES: &[&str] = &[
    "AtWork",
    "BEAT",
    "CutShort",
    "Exits",
    "Exposed",
    "Flight",
    "Flights",
    "Giver",
    "Grounds",
    "HUNT",
    "Holding",
    "KeptHeaders",
    "Lasting",
    "LeftOut",
    "NoSense",
    "NobodyAsked",
    "NotThere",
    "Observer",
    "OncePerKey",
    "Outset",
    "Stranger",
    "Turns",
    "become_it",
    "engine_cut_short",
    "engine_no_sense",
    "is_well",
    "lay_out",
    "leave_behind",
    "nobody_asked",
    "overtakes",
    "shapes_text",
    "take_over",
    "turn_away",
];

/// Words forbidden in names and in sentences, in lower case.
const WORDS: &[&str] = &[
    "anybody",
    "companions",
    "distrust",
    "distrusts",
    "intake",
    "judgement",
    "judgements",
    "lane",
    "lanes",
    "leanest",
    "medias",
    "opinion",
    "opinions",
    "patience",
    "pilot",
    "pilots",
    "pulse",
    "said",
    "seat",
    "seats",
    "shelf",
    "shelves",
    "somebody",
    "specimen",
    "specimens",
    "told",
    "workshop",
    "workshops",
];

const PHRASES: &[&str] = &["at the most", "of ours"];

/// Returns the former words in a text, with the numbers of their lines.
pub(crate) fn old_words(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let lower_case = line.to_lowercase();
        let phrases = PHRASES.iter().filter(|phrase| lower_case.contains(**phrase)).copied();
        let identifiers = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        let is_old = |name: &&str| {
            let mut parts = name.split('_').map(str::to_lowercase);
            NAMES.contains(name) || parts.any(|part| WORDS.contains(&&*part))
        };
        let words = identifiers.filter(is_old);
        found.extend(phrases.chain(words).map(|word| (index + 1, word.to_owned())));
    }
    found
}

/// Returns code, documentation, configuration and scripts below a directory, without files that other projects wrote.
pub(crate) fn checked_files(root: &Path) -> Vec<(PathBuf, String)> {
    const SKIPPED: &[&str] = &["target", "corpus", "LICENSE", "CHANGELOG.md", "vocabulary.rs"];
    const EXTENSIONS: &[&str] = &[
        "cfg", "conf", "js", "md", "py", "rs", "service", "sh", "socket", "toml", "yaml", "yar",
        "yml",
    ];
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if SKIPPED.contains(&name) || name.starts_with(".git") {
                continue;
            }
            let extension = path.extension().map(|extension| extension.to_str().unwrap());
            if path.is_dir() {
                directories.push(path);
            } else if extension.is_none_or(|extension| EXTENSIONS.contains(&extension))
                && let Ok(text) = fs::read_to_string(&path)
            {
                files.push((path, text));
            }
        }
    }
    files
}

#[test]
fn former_words_are_found_in_names_and_sentences() {
    let text =
        "struct SingleFlight;\nlet pilot_count = 1; // Told by a Flight.\nAt the most five seats.";
    let found = old_words(text);
    let found: Vec<_> = found.iter().map(|(line, word)| (*line, &**word)).collect();
    let expected =
        [(2, "pilot_count"), (2, "Told"), (2, "Flight"), (3, "at the most"), (3, "seats")];
    assert_eq!(found, expected);
}

//! Kinds of findings, from the texts of servers. Only known texts are something other than an infection or a refusal,
//! because the caller may let the other kinds pass.

use crate::answer::FindingKind::{self, Encrypted, Infected, Limit, Refused, TooLarge};

/// Parts of texts that report malware. They also match inside of words, because a finding must not become weaker.
const INFECTION_PARTS: &[&str] = &[
    "virus",
    "malware",
    "infect",
    "trojan",
    "worm",
    "threat",
    "suspicious",
    "suspected",
    "exploit",
    "phish",
    "spyware",
    "ransom",
    "adware",
    "riskware",
    "backdoor",
    "eicar",
];

/// Words that report contents that need a password.
const ENCRYPTION_WORDS: &str = "encrypt encrypted encryption password passwords";

/// Words that report a limit, or contents that cannot be decoded.
const LIMIT_WORDS: &str = "corrupt corrupted decode decoded decoding decompose decomposed decomposer decomposition \
     depth exceed exceeded exceeding exceeds extract extracted extraction layer layers limit limits malformed nested \
     nesting partial recursion recursive recursively timeout timed too unscannable";

/// Words that report a size.
const SIZE_WORDS: &str = "big bigger large larger oversize oversized size sizes";

/// Words that make a size or a number that of the contents, rather than that of the whole file.
const CONTENTS_WORDS: &str = "7z archive archived archives compressed compression container containers content contents \
     decompressed decompression depth embedded entries entry extract extracted extraction files gzip layer layers level \
     levels member members nested nesting number object objects rar ratio recursion recursive recursively tar total \
     uncompressed unpack unpacked unpacking zip";

/// Words without influence on the kind. A text with any other word may contain the name of a file.
const OTHER_WORDS: &str = "a allowed an and are at attachment be because been block blocked but by can cannot configured \
     contain contained contains could data deep detected did do document documents does due during error fail failed file \
     for format found from has have in incomplete invalid is it item items its long mail many max maximal maximum message \
     multipart not of office on or out over part parts pdf permitted policy processing protected protection reached \
     reason scan scanned scanner scanning supported than that the this time to unable unsupported violation violations was \
     were while with within";

/// Names that servers report in place of an infection: OPSWAT, and clamd behind c-icap.
const OTHER_NAMES: &[(&str, FindingKind)] = &[
    ("encrypted", Encrypted),
    ("encrypted archive", Encrypted),
    ("encrypted document", Encrypted),
    ("encrypted file", Encrypted),
    ("password protected", Encrypted),
    ("password protected archive", Encrypted),
    ("password protected document", Encrypted),
    ("exceeded archive depth", Limit),
    ("exceeded archive size", Limit),
    ("exceeded archive file number", Limit),
    ("exceeded archive timeout", Limit),
];
const OTHER_PREFIXES: &[(&str, FindingKind)] =
    &[("heuristics.encrypted.", Encrypted), ("heuristics.limits.exceeded", Limit)];

/// Values of a reason that only repeat that there is one.
const UNSPECIFIC: &[&str] = &["true", "yes", "1", "block", "blocked"];

/// Returns the kind of a finding in a header for names of infections.
pub(crate) fn of_name(name: &str) -> FindingKind {
    let name = name.trim().to_lowercase();
    let exact = OTHER_NAMES.iter().find(|(known, _)| *known == name);
    let prefixed = || OTHER_PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    match exact.or_else(prefixed) {
        Some((_, kind)) => *kind,
        None if words(&name).any(|word| word == "violation") => of_violation(&name),
        None => Infected,
    }
}

/// Returns the kind of a violation of a policy or of a limit for containers.
pub(crate) fn of_violation(text: &str) -> FindingKind {
    of_words(text).unwrap_or(Refused)
}

/// Returns the kind of the reason for a block; `None` if the value is not a reason.
pub(crate) fn of_reason(reason: &str) -> Option<FindingKind> {
    let is_unspecific = UNSPECIFIC.iter().any(|word| word.eq_ignore_ascii_case(reason.trim()));
    (!is_unspecific).then(|| of_violation(reason))
}

/// Returns the kind of a result of F-Secure.
pub(crate) fn of_result(result: &str) -> FindingKind {
    of_words(result).unwrap_or(Infected)
}

/// Returns the kind that a text reports; `None` if the text reports no kind, or if a part of it may be the name of a
/// file, which must not select a kind that may pass.
fn of_words(text: &str) -> Option<FindingKind> {
    let text = text.to_lowercase();
    if INFECTION_PARTS.iter().any(|part| text.contains(part)) {
        return Some(Infected);
    }
    let is_known = |word: &str| {
        [ENCRYPTION_WORDS, LIMIT_WORDS, SIZE_WORDS, CONTENTS_WORDS, OTHER_WORDS]
            .into_iter()
            .any(|list| lists(list, word))
    };
    if !is_prose(&text) || !words(&text).all(is_known) {
        return None;
    }
    let has = |list: &str| words(&text).any(|word| lists(list, word));
    if has(ENCRYPTION_WORDS) {
        Some(Encrypted)
    } else if has(SIZE_WORDS) && !has(CONTENTS_WORDS) {
        Some(TooLarge)
    } else if has(LIMIT_WORDS) || has(SIZE_WORDS) {
        Some(Limit)
    } else {
        None
    }
}

/// Returns the words of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Returns whether one of the words of a list, separated by spaces, is `word`.
fn lists(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|other| other == word)
}

/// Returns whether a text has only the punctuation of sentences. A period before a letter or digit is part of a name.
fn is_prose(text: &str) -> bool {
    let mut characters = text.trim().chars().peekable();
    while let Some(character) = characters.next() {
        let next = characters.peek();
        match character {
            '.' if next.is_none_or(|next| *next == ' ') => {}
            ' ' | '-' | '_' | ',' | ';' => {}
            character if character.is_alphanumeric() => {}
            _ => return false,
        }
    }
    true
}

/// Meaning of a value of `X-Error-Code`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ErrorCode {
    /// No error.
    None,
    /// A property of the file.
    Finding(FindingKind),
    /// A failure of the server.
    Failure,
}

impl ErrorCode {
    /// Returns the meaning of a code of Symantec Content Analysis or of a similar server.
    pub(crate) fn parse(code: &str) -> Self {
        let code = code.trim().to_lowercase().replace(['-', ' '], "_");
        match code.as_str() {
            "" | "0" | "none" | "no_error" | "ok" | "success" => Self::None,
            "password_protected" | "encrypted" | "encrypted_archive" | "encrypted_file" => {
                Self::Finding(Encrypted)
            }
            "decode_error" => Self::Finding(Limit),
            "max_file_size_exceeded"
            | "max_size_exceeded"
            | "file_size_exceeded"
            | "file_too_large"
            | "too_large" => Self::Finding(TooLarge),
            // Nesting depth of archives; total size and number of the files in an archive.
            code if code.starts_with("max_") && code.ends_with("_exceeded") => Self::Finding(Limit),
            // Type of the file, extension of its name.
            code if code.ends_with("_blocked") => Self::Finding(Refused),
            // Such as "antivirus_engine_error" or "insufficient_space". A retry may also avoid "scan_timeout".
            _ => Self::Failure,
        }
    }
}

//! Kinds of findings, from the texts of servers. Only known texts are something other than an infection or a refusal,
//! because the caller may let the other kinds pass.

use crate::answer::FindingKind::{self, Encrypted, Infected, Limit, Refused};

/// Parts of texts that report malware.
const INFECTION_WORDS: &[&str] = &[
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

/// Parts of texts that report contents that need a password.
const ENCRYPTION_WORDS: &[&str] = &["encrypt", "password"];

/// Parts of texts that report a limit, or contents that cannot be decoded.
const LIMIT_WORDS: &[&str] = &[
    "size",
    "too large",
    "too big",
    "too many",
    "too deep",
    "depth",
    "nest",
    "layer",
    "recursi",
    "exceed",
    "limit",
    "timeout",
    "timed out",
    "extract",
    "malformed",
    "corrupt",
    "partial",
    "decod",
    "decompos",
    "unscannable",
];

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
        None if name.contains("violation") => of_violation(&name),
        None => Infected,
    }
}

/// Returns the kind of a violation of a policy or of a limit for containers.
pub(crate) fn of_violation(text: &str) -> FindingKind {
    of_words(text).unwrap_or(Refused)
}

/// Returns the kind of the reason for a block; none if the value is not a reason.
pub(crate) fn of_reason(reason: &str) -> Option<FindingKind> {
    let is_unspecific = UNSPECIFIC.iter().any(|word| word.eq_ignore_ascii_case(reason.trim()));
    (!is_unspecific).then(|| of_violation(reason))
}

/// Returns the kind of a result of F-Secure.
pub(crate) fn of_result(result: &str) -> FindingKind {
    of_words(result).unwrap_or(Infected)
}

/// Returns the kind that the words of a text report. A text with punctuation may contain the name of a file, whose
/// words mean nothing; only words for infections count there.
fn of_words(text: &str) -> Option<FindingKind> {
    let text = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || " -_,;".contains(c));
    let kinds = [(INFECTION_WORDS, Infected), (ENCRYPTION_WORDS, Encrypted), (LIMIT_WORDS, Limit)];
    let mut kinds = kinds.into_iter().filter(|(_, kind)| *kind == Infected || is_plain);
    kinds.find_map(|(words, kind)| has(words).then_some(kind))
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
            // Layers of archives, size of the file, total size, number of files.
            code if code.starts_with("max_") && code.ends_with("_exceeded") => Self::Finding(Limit),
            // Type of the file, extension of its name.
            code if code.ends_with("_blocked") => Self::Finding(Refused),
            // Such as "antivirus_engine_error" or "insufficient_space". A retry may also avoid "scan_timeout".
            _ => Self::Failure,
        }
    }
}

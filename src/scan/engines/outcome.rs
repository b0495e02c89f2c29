//! Outcomes of one engine, the same for all engines.
//!
//! | outcome | the engine | the operator's policy |
//! |---|---|---|
//! | clean | examined the whole file and found nothing | none |
//! | infected | found malware | none: not clean |
//! | refused | does not allow the contents, by a policy of its own | none: not clean |
//! | encrypted | found contents that need a password | `scan.on_encrypted` |
//! | limit | stopped at a limit inside the file | `scan.on_limit` |
//! | unreadable | could not read contents: damaged, truncated, packed by an unknown method | `unpack.on_unreadable` |
//! | inconsistent | found contents that programs unpack differently | `unpack.on_inconsistent` |
//! | too large | did not examine the file because of its size | the engine's `on_oversize` |
//! | failed (an `Err`) | did not finish | the engine's `on_failure` |

use crate::text::single_line;

/// Maximum length of the first line of an engine's output, bytes.
pub(super) const MAX_FIRST_LINE: usize = 1000;

/// Maximum length of a location inside a file, bytes.
pub(super) const MAX_LOCATION: usize = 800;

/// What one engine determined about a file. An engine that failed has none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing found in the whole file.
    Clean,
    /// Malware. The name is empty only for a script without output.
    Infected(OutcomeText),
    /// Contents that a policy of the engine does not allow.
    Refused(OutcomeText),
    /// Contents that need a password, and nothing found in the rest.
    Encrypted(OutcomeText),
    /// The engine stopped at a limit inside the file, and found nothing before.
    Limit(OutcomeText),
    /// Contents that are damaged, truncated or packed by an unknown method, and nothing found in the rest.
    Unreadable(OutcomeText),
    /// Contents that two programs would unpack differently, and nothing found in any of them.
    Inconsistent(OutcomeText),
    /// The file exceeds the engine's limit for whole files. Nothing was examined.
    TooLarge,
}

/// An engine's text for an outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutcomeText {
    /// The engine's name for a finding or a limit, or the reason why contents were not examined: arbitrary text.
    pub name: String,
    /// Names of the containers and of the object inside the file, such as "invoice.iso > setup.exe"; `None` for the
    /// file itself, and for engines that report no location. The names are user content: the audit log and
    /// errors in the log contain them, answers to clients only with `unpack.report_paths`.
    pub location: Option<String>,
    /// Names of the rules that `name` consists of; empty for other engines, and for a type that lists do not allow.
    pub rules: Vec<String>,
}

impl From<&str> for OutcomeText {
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

impl From<String> for OutcomeText {
    fn from(name: String) -> Self {
        Self { name, location: None, rules: Vec::new() }
    }
}

impl OutcomeText {
    /// Returns name and location as a single line of at most `max` bytes. The name is shortened before the location.
    pub(super) fn line(&self, max: usize) -> String {
        line(&self.name, self.location.as_deref(), max)
    }

    /// Returns the text sanitized, with a name of at most `max_name` bytes.
    fn sanitized(&self, max_name: usize) -> Self {
        let location = self.location.as_ref().map(|location| single_line(location, MAX_LOCATION));
        let rules = self.rules.iter().map(|rule| single_line(rule, MAX_FIRST_LINE)).collect();
        Self { name: single_line(&self.name, max_name), location, rules }
    }

    /// Returns the memory outside of the value itself, bytes.
    pub(super) fn allocated_bytes(&self) -> usize {
        let location = self.location.as_ref().map_or(0, String::len);
        self.name.len() + location + names_bytes(&self.rules)
    }
}

/// Returns the memory of names outside of the list itself, bytes.
pub(super) fn names_bytes(names: &[String]) -> usize {
    names.iter().map(|name| size_of::<String>() + name.len()).sum()
}

/// Returns a name and its location as a single line of at most `max` bytes. The name is shortened before the location.
pub(super) fn line(name: &str, location: Option<&str>, max: usize) -> String {
    let Some(location) = location else { return single_line(name, max) };
    let location = format!(" in {location}");
    let name = single_line(name, max.saturating_sub(location.len()));
    single_line(&(name + &location), max)
}

impl Outcome {
    /// The names of all outcomes.
    pub(super) const NAMES: [&str; 8] = [
        "clean",
        "infected",
        "refused",
        "encrypted",
        "limit",
        "unreadable",
        "inconsistent",
        "too_large",
    ];

    /// Returns the outcome's name in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Infected(_) => "infected",
            Self::Refused(_) => "refused",
            Self::Encrypted(_) => "encrypted",
            Self::Limit(_) => "limit",
            Self::Unreadable(_) => "unreadable",
            Self::Inconsistent(_) => "inconsistent",
            Self::TooLarge => "too_large",
        }
    }

    /// Returns whether the outcome is valid only if the engine received the whole file. Infections and refusals stand,
    /// whatever follows; an engine that examined nothing does not count. The other outcomes rely on the examination of
    /// the rest. The answers of ICAP servers follow the same rule, in `mcs-icap`.
    pub(super) fn needs_whole_file(&self) -> bool {
        match self {
            Self::Clean
            | Self::Encrypted(_)
            | Self::Limit(_)
            | Self::Unreadable(_)
            | Self::Inconsistent(_) => true,
            Self::Infected(_) | Self::Refused(_) | Self::TooLarge => false,
        }
    }

    /// Returns the engine's text.
    pub(super) fn text(&self) -> Option<&OutcomeText> {
        match self {
            Self::Clean | Self::TooLarge => None,
            Self::Infected(text)
            | Self::Refused(text)
            | Self::Encrypted(text)
            | Self::Limit(text)
            | Self::Unreadable(text)
            | Self::Inconsistent(text) => Some(text),
        }
    }

    /// Returns this outcome with a sanitized text, whose name has at most `max_name` bytes.
    pub(super) fn sanitized(mut self, max_name: usize) -> Self {
        match &mut self {
            Self::Clean | Self::TooLarge => {}
            Self::Infected(text)
            | Self::Refused(text)
            | Self::Encrypted(text)
            | Self::Limit(text)
            | Self::Unreadable(text)
            | Self::Inconsistent(text) => *text = text.sanitized(max_name),
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_a_known_name() {
        let text = || OutcomeText::from("name");
        let outcomes = [
            Outcome::Clean,
            Outcome::Infected(text()),
            Outcome::Refused(text()),
            Outcome::Encrypted(text()),
            Outcome::Limit(text()),
            Outcome::Unreadable(text()),
            Outcome::Inconsistent(text()),
            Outcome::TooLarge,
        ];
        assert_eq!(outcomes.map(|outcome| outcome.name()), Outcome::NAMES);
    }

    #[test]
    fn line_names_the_location_and_shortens_the_name_first() {
        let text = OutcomeText {
            location: Some("a > b\u{202e}".into()),
            ..OutcomeText::from("Rule\none")
        };
        let text = text.sanitized(100);
        assert_eq!(text.line(100), "Rule one in a > b");
        assert_eq!(text.line(14), "Rule in a > b");
        assert_eq!(text.line(3), "in");
        assert_eq!(OutcomeText::from("Rule").line(3), "Rul");
    }
}

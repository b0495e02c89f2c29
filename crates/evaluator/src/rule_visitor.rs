//! Evaluates the rules on the objects of one media file.

use std::ops::ControlFlow;

use boreal::{
    Scanner,
    scanner::{CallbackEvents, ScanCallbackResult, ScanEvent},
};
use mcs_filetype::MediaType;

use crate::{
    error::EvaluationError,
    metadata::{RuleScope, rule_kind, rule_scope},
    object_types::ObjectTypes,
    prepared::PreparedParts,
    report::{Note, NoteKind, RuleFinding, RuleKind},
    rule_filter::RuleFilter,
    structure::ContentStructure,
    unpack::{MediaObject, Visitor},
    variables,
};

/// Maximum number of reported names of each kind. The evaluation of an object stops at this number of malware rules.
/// Matches of policy rules do not stop it, because a malware rule that matches changes the result.
pub(crate) const MAX_NAMES: usize = 16;

/// Maximum number of observed rules that match in one file. With more, the evaluation fails, unless other rules match:
/// none may be left out, because each may count when the same report is used again.
pub(crate) const MAX_OBSERVED: usize = 64;

/// The rules, and what they have found.
pub(crate) struct RuleVisitor<'r> {
    parts: Vec<Scanner>,
    filter: RuleFilter<'r>,
    /// Whether rules use variables that differ between objects with the same content.
    depends_on_position: bool,
    types: Option<ObjectTypes>,
    finding: Option<RuleFinding>,
    /// Matches of observed rules, each rule once.
    observed: Vec<RuleFinding>,
    /// A string with too many matches.
    limit: Option<Note>,
    error: Option<EvaluationError>,
}

/// What the rules have found in one file.
pub(crate) struct RuleResult {
    pub(crate) finding: Option<RuleFinding>,
    pub(crate) observed: Vec<RuleFinding>,
    pub(crate) limit: Option<Note>,
}

impl<'r> RuleVisitor<'r> {
    /// Restores the rules. Parts that cannot be restored are an error only if no other rules match.
    pub(crate) fn new(prepared: PreparedParts<'_>, filter: RuleFilter<'r>) -> Self {
        let mut visitor = Self {
            parts: Vec::new(),
            filter,
            depends_on_position: prepared.depends_on_position(),
            types: None,
            finding: None,
            observed: Vec::new(),
            limit: None,
            error: None,
        };
        for part in prepared {
            match part {
                Ok(mut scanner) => {
                    let events =
                        CallbackEvents::RULE_MATCH | CallbackEvents::STRING_REACHED_MATCH_LIMIT;
                    let params = scanner.scan_params().clone().callback_events(events);
                    scanner.set_scan_params(params);
                    visitor.parts.push(scanner);
                }
                Err(error) => visitor.failed(EvaluationError::Rules(error)),
            }
        }
        visitor
    }

    /// Determines the types of objects as well.
    pub(crate) fn with_types(self, types: ObjectTypes) -> Self {
        Self { types: Some(types), ..self }
    }

    /// Allows objects of all types.
    pub(crate) fn allow_all_types(&mut self) {
        if let Some(types) = &mut self.types {
            types.allow_all();
        }
    }

    /// Evaluates the rules on bytes without a meaning, so that children share the memory of what the engine creates at
    /// first use.
    pub(crate) fn warm_up(&mut self) {
        for scanner in &self.parts {
            // Matches and errors have no meaning either.
            let _ = scanner.scan_mem(&[b'A'; 4096]);
        }
    }

    /// Returns the findings, and a note. The rules stay: dropping them in a child would copy all their memory.
    ///
    /// # Errors
    /// If rules could not be evaluated and no others match that are not only observed.
    pub(crate) fn take_result(&mut self) -> Result<RuleResult, EvaluationError> {
        let (error, finding, limit) = (self.error.take(), self.finding.take(), self.limit.take());
        let observed = std::mem::take(&mut self.observed);
        match error {
            Some(error) if finding.is_none() => Err(error),
            _ => Ok(RuleResult { finding, observed, limit }),
        }
    }

    /// Keeps the first match of each observed rule.
    fn observe(&mut self, rules: Vec<(RuleKind, String)>, object: &MediaObject<'_>) {
        for (kind, name) in rules {
            if let Some(known) = self.observed.iter_mut().find(|known| known.rules.contains(&name))
            {
                // Rules of several files may have the same name.
                known.kind = known.kind.max(kind);
                continue;
            }
            if self.observed.len() == MAX_OBSERVED {
                self.failed(EvaluationError::Observed(MAX_OBSERVED));
                return;
            }
            let path = object.report_path();
            self.observed.push(RuleFinding { kind, rules: vec![name], path });
        }
    }

    /// Keeps the first error.
    fn failed(&mut self, error: EvaluationError) {
        self.error.get_or_insert(error);
    }
}

impl Visitor for RuleVisitor<'_> {
    fn visit(&mut self, object: &MediaObject<'_>) -> ControlFlow<()> {
        if object.is_repeated && !self.depends_on_position {
            return ControlFlow::Continue(());
        }
        let file_type = self.types.as_ref().and_then(|types| types.detect(object));
        let file_type = file_type.as_ref();
        let mut matches = Matches::default();
        let mut first_error = None;
        let structure = ContentStructure::parse(object.bytes);
        if structure.is_limited {
            let reason = "the text has too many elements or functions".to_owned();
            let path = object.report_path();
            self.limit.get_or_insert(Note { kind: NoteKind::Limit, reason, path });
        }
        for scanner in &mut self.parts {
            variables::set(scanner, object, file_type.map_or("", MediaType::as_str), &structure);
            match matches.add_part(scanner, object, self.filter) {
                Ok(None) => {}
                Ok(Some(string)) => {
                    let reason = format!("string {string} has too many matches");
                    let path = object.report_path();
                    self.limit.get_or_insert(Note { kind: NoteKind::Limit, reason, path });
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
            if matches.is_complete() {
                break;
            }
        }
        if let Some(error) = first_error {
            self.failed(error);
        }
        self.observe(std::mem::take(&mut matches.observed), object);
        let forbidden = || {
            let reason = self.types.as_ref()?.forbids(object, file_type?)?;
            Some((RuleKind::Type, vec![reason]))
        };
        let found = match matches.kind() {
            Some(kind) => Some((kind, matches.into_names())),
            None => forbidden(),
        };
        let Some((kind, rules)) = found else { return ControlFlow::Continue(()) };
        self.finding = Some(RuleFinding { kind, rules, path: object.report_path() });
        ControlFlow::Break(())
    }
}

/// Names of matching rules by kind, each name once in the list of its kind.
#[derive(Default, Debug)]
struct Matches {
    malware: Vec<String>,
    policy: Vec<String>,
    /// Observed rules of both kinds.
    observed: Vec<(RuleKind, String)>,
}

impl Matches {
    /// Evaluates the rules of one part. Returns a string that reached the limit of matches.
    ///
    /// # Errors
    /// If the engine fails. The matches before are kept.
    fn add_part(
        &mut self,
        scanner: &Scanner,
        object: &MediaObject<'_>,
        filter: RuleFilter<'_>,
    ) -> Result<Option<String>, EvaluationError> {
        let mut limited_string = None;
        let result = scanner.scan_mem_with_callback(object.bytes, |event| {
            match event {
                ScanEvent::RuleMatch(rule) if !filter.ignores(rule.name) => {
                    // The service has checked the metadata of all rules.
                    let scope = rule_scope(scanner, rule.metadatas).unwrap_or(RuleScope::Both);
                    if scope.includes(object.is_media()) {
                        let kind = rule_kind(scanner, rule.metadatas);
                        self.add(kind.unwrap_or(RuleKind::Malware), rule.name, filter);
                    }
                }
                ScanEvent::StringReachedMatchLimit(string) => {
                    limited_string =
                        Some(format!("{} of rule {}", string.string_name, string.rule_name));
                }
                _ => {}
            }
            if self.is_complete() {
                ScanCallbackResult::Abort
            } else {
                ScanCallbackResult::Continue
            }
        });
        match result {
            Ok(()) => Ok(limited_string),
            // The callback ended the evaluation.
            Err(_) if self.is_complete() => Ok(None),
            Err(error) => Err(EvaluationError::Engine(error.to_string())),
        }
    }

    /// Returns the most severe kind of the matching rules; `None` if no rule matches.
    fn kind(&self) -> Option<RuleKind> {
        let malware = self.malware.first().map(|_| RuleKind::Malware);
        malware.or_else(|| self.policy.first().map(|_| RuleKind::Policy))
    }

    /// Returns the distinct names, those of malware first, at most [`MAX_NAMES`].
    fn into_names(self) -> Vec<String> {
        let Self { malware: mut names, policy, .. } = self;
        for name in policy {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.truncate(MAX_NAMES);
        names
    }

    fn add(&mut self, kind: RuleKind, name: &str, filter: RuleFilter<'_>) {
        if filter.observes(name) {
            // One more than the limit, which then fails.
            if let Some((known, _)) = self.observed.iter_mut().find(|(_, known)| known == name) {
                *known = kind.max(*known);
            } else if self.observed.len() <= MAX_OBSERVED {
                self.observed.push((kind, name.to_owned()));
            }
            return;
        }
        let names = match kind {
            RuleKind::Malware => &mut self.malware,
            RuleKind::Policy | RuleKind::Type => &mut self.policy,
        };
        if names.len() < MAX_NAMES && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }

    /// Returns whether further matches change nothing.
    fn is_complete(&self) -> bool {
        self.malware.len() >= MAX_NAMES
    }
}

//! Findings in response headers: in the ICAP head, in the encapsulated HTTP head, and in the trailer. A header that
//! names a virus or a block overrides the status.
//!
//! | header | servers | in responses about clean files |
//! |---|---|---|
//! | `X-Infection-Found` | c-icap, Symantec, ESET, Trend Micro, Kaspersky | absent |
//! | `X-Violations-Found` | c-icap, Symantec, Clearswift, OPSWAT | absent, or `0` |
//! | `X-Virus-ID` | Sophos, Kaspersky, ESET, Trend Micro, Fortinet | absent, or `no threats` (Kaspersky Web Traffic Security) |
//! | `X-Virus-Name`, `X-Block-Reason` | Skyhigh Web Gateway, Fortinet | absent, or empty if a rule always adds them |
//! | `X-Blocked` | Sophos | absent |
//! | `X-Blocked-Reason` | OPSWAT | absent |
//! | `X-FSecure-Scan-Result`, `X-FSecure-Infection-Name` | F-Secure | `clean`, and absent |
//! | `X-Response-Info` | Kaspersky, ESET, OPSWAT, c-icap | `Allowed`, `passed` |
//! | `X-Error-Code`, `X-ICAP-Error` | Symantec Content Analysis | absent |
//!
//! Each value of a repeated header counts, so that a harmless value cannot hide a finding. The name of an infection
//! overrides all others. `kind` determines what else a text means.

use crate::{
    answer::{Answer, FindingKind},
    error::IcapError,
    kind::{self, ErrorCode},
    message::IcapHead,
};

/// Name of a finding without a readable name.
const NAMELESS: &str = "unnamed finding";

/// Headers whose value is the name of an infection, by precedence.
const NAMES: [&str; 3] = ["x-virus-id", "x-virus-name", "x-fsecure-infection-name"];

/// Headers whose value is the reason for a block, by precedence.
const REASONS: [&str; 3] = ["x-block-reason", "x-blocked-reason", "x-blocked"];

const ERROR_CODES: [&str; 2] = ["x-error-code", "x-icap-error"];

/// Values that mean "no finding".
const NO_VIRUS: &[&str] = &["", "none", "no threat", "no threats"];
const NO_BLOCK: &[&str] = &["", "none", "no", "false", "0"];

/// Name of a finding that only `X-Response-Info` reports, whose value is not a name.
const BLOCKED: &str = "blocked by the ICAP server";

/// Findings of one head, in the order of precedence of their names.
#[derive(Default)]
struct Findings {
    /// Findings of which the kind is reported.
    specific: Vec<(FindingKind, String)>,
    /// Findings that are described by the specific ones, if there are any.
    unspecific: Vec<(FindingKind, String)>,
}

/// Returns the finding, if the head contains one.
///
/// # Errors
/// An error code that reports a failure of the server, without malware or a refusal: encryption or a limit beside a
/// failure does not show that the rest of the file was examined.
pub(crate) fn finding(head: &IcapHead) -> Result<Option<Answer>, IcapError> {
    let mut findings = Findings::default();
    findings.add_names(head);
    findings.add_reasons(head);
    let failure = findings.add_error_codes(head);
    match (findings.into_answer(), failure) {
        (Some(answer), _) if answer.is_final() => Ok(Some(answer)),
        (_, Some(code)) => Err(IcapError::Reported(format!("error code {code}"))),
        (answer, None) => Ok(answer),
    }
}

impl Findings {
    fn add(&mut self, kind: FindingKind, name: impl Into<String>) {
        self.specific.push((kind, name.into()));
    }

    /// Adds names of infections and violations.
    fn add_names(&mut self, head: &IcapHead) {
        for header in NAMES {
            for name in values(head, header, NO_VIRUS) {
                self.add(kind::of_name(&name), name);
            }
        }
        let mut without_name = Vec::new();
        for infection in head.all("x-infection-found") {
            let threat = field(&infection, "threat").filter(|threat| !threat.trim().is_empty());
            let text = threat.unwrap_or(&infection);
            // Types of draft-stecher-icap-subid: 0 infection, 1 policy for mail, 2 limit of containers.
            let kind = match field(&infection, "type").map(str::trim) {
                Some("1" | "2") => kind::of_violation(text),
                _ => kind::of_name(text),
            };
            if threat.is_some() {
                self.add(kind, text);
            } else {
                without_name.push((kind, infection));
            }
        }
        // Servers send these headers only with findings, therefore empty values count.
        for violations in head.all("x-violations-found").filter(|value| value != "0") {
            let mut threats = violation_threats(&violations).peekable();
            if threats.peek().is_none() {
                self.unspecific.push((FindingKind::Infected, violations.clone()));
            }
            for threat in threats {
                self.add(kind::of_name(threat), threat);
            }
        }
        self.specific.append(&mut without_name);
    }

    /// Adds reasons for blocks, and results without a name.
    fn add_reasons(&mut self, head: &IcapHead) {
        for header in REASONS {
            for reason in values(head, header, NO_BLOCK) {
                match kind::of_reason(&reason) {
                    Some(kind) => self.add(kind, reason),
                    None => self.unspecific.push((FindingKind::Refused, reason)),
                }
            }
        }
        for result in values(head, "x-fsecure-scan-result", &["", "clean"]) {
            self.add(kind::of_result(&result), result);
        }
        if head.all("x-response-info").any(|value| is_block(&value)) {
            self.unspecific.push((FindingKind::Refused, BLOCKED.to_owned()));
        }
    }

    /// Adds error codes that are properties of the file. Returns a code that reports a failure of the server.
    fn add_error_codes(&mut self, head: &IcapHead) -> Option<String> {
        let mut failure = None;
        for value in ERROR_CODES.iter().flat_map(|header| head.all(header)) {
            for code in value.split([',', ';']).map(str::trim) {
                match ErrorCode::parse(code) {
                    ErrorCode::None => {}
                    ErrorCode::Finding(kind) => self.add(kind, code),
                    ErrorCode::Failure => failure = Some(code.to_owned()),
                }
            }
        }
        failure
    }

    fn into_answer(self) -> Option<Answer> {
        let findings = if self.specific.is_empty() { self.unspecific } else { self.specific };
        let kind = findings.iter().map(|(kind, _)| *kind).min()?;
        let names = findings.into_iter().filter(|(other, _)| *other == kind);
        // Names that are empty after trimming are findings too.
        let mut names = names.map(|(_, name)| name.trim().to_owned());
        let name = names.find(|name| !name.is_empty()).unwrap_or_else(|| NAMELESS.to_owned());
        Some(Answer::Found { kind, name })
    }
}

/// Returns the values of a header that are not one of `none`, ignoring case.
fn values(head: &IcapHead, header: &str, none: &[&str]) -> Vec<String> {
    let is_none = |value: &String| none.iter().any(|word| word.eq_ignore_ascii_case(value));
    head.all(header).filter(|value| !is_none(value)).collect()
}

/// Returns whether one of the words is "block" or "blocked", ignoring case, and not negated.
fn is_block(info: &str) -> bool {
    let is_word =
        |word: &str, words: &[&str]| words.iter().any(|other| other.eq_ignore_ascii_case(word));
    let mut previous = "";
    for word in info.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        if is_word(word, &["block", "blocked"]) && !is_word(previous, &["no", "not", "un"]) {
            return true;
        }
        previous = word;
    }
    false
}

/// Returns a field of `Type=0; Resolution=2; Threat=NAME;`.
fn field<'i>(infection: &'i str, name: &str) -> Option<&'i str> {
    let mut fields = infection.split(';').filter_map(|field| field.trim().split_once('='));
    fields.find_map(|(key, value)| key.trim().eq_ignore_ascii_case(name).then_some(value))
}

/// Returns the threats. The value is a count, followed by four lines for each violation: file, threat, two numbers.
fn violation_threats(violations: &str) -> impl Iterator<Item = &str> {
    let threats = violations.lines().skip(2).step_by(4);
    threats.map(str::trim).filter(|threat| !threat.is_empty())
}

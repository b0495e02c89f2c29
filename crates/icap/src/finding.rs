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
//! | `X-MFE-PREVENT: SCANFAIL` | Trellix DLP Network Prevent | absent |
//!
//! Each value of a repeated header counts, so that a harmless value cannot hide a finding. The name of an infection
//! overrides all others. `kind` determines what else a text means.

use crate::{
    answer::{Answer, Finding, FindingKind},
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

/// Header of Trellix DLP Network Prevent for contents that it lets pass without an examination: corrupt or nested files,
/// files above a limit.
const NOT_SCANNED: &str = "x-mfe-prevent";

/// Values that mean "no finding".
const NO_VIRUS: &[&str] = &["", "none", "no threat", "no threats"];
const NO_BLOCK: &[&str] = &["", "none", "no", "false", "0"];

/// Name of a finding that only `X-Response-Info` reports, whose value is not a name.
const BLOCKED: &str = "blocked by the ICAP server";

/// Findings of all heads and the trailer of a response.
#[derive(Default)]
pub(crate) struct Findings {
    findings: Vec<Finding>,
    /// An error code that reports a failure of the server.
    failure: Option<String>,
}

impl Findings {
    /// Returns the findings of a head.
    pub(crate) fn new(head: &IcapHead) -> Self {
        let mut findings = Self::default();
        findings.add_head(head);
        findings
    }

    /// Adds the findings of another head or of a trailer.
    pub(crate) fn add_head(&mut self, head: &IcapHead) {
        let mut reported = HeadFindings::default();
        reported.add_names(head);
        reported.add_reasons(head);
        let failure = reported.add_error_codes(head);
        self.failure = self.failure.take().or(failure);
        // A reason without a kind is described by the specific findings of the same head, if there are any.
        let HeadFindings { specific, unspecific } = reported;
        self.findings.extend(if specific.is_empty() { unspecific } else { specific });
    }

    /// Returns whether no head reports anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.findings.is_empty() && self.failure.is_none()
    }

    /// Returns whether the verdict is "not clean", whatever the rest of the response contains.
    pub(crate) fn is_final(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind.is_final())
    }

    /// Returns the answer; `None` if there is no finding.
    ///
    /// # Errors
    /// An error code that reports a failure of the server, without malware or a refusal: encryption or a limit beside a
    /// failure does not show that the rest of the file was examined.
    pub(crate) fn into_answer(self) -> Result<Option<Answer>, IcapError> {
        let is_final = self.is_final();
        if let (Some(code), false) = (self.failure, is_final) {
            return Err(IcapError::Reported(format!("error code {code}")));
        }
        let mut findings = self.findings;
        // Names that are empty after trimming are findings too.
        for finding in &mut findings {
            finding.name = finding.name.trim().to_owned();
        }
        findings.sort_by_key(|finding| (finding.kind, finding.name.is_empty()));
        findings.dedup_by_key(|finding| finding.kind);
        let mut findings = findings.into_iter().map(|mut finding| {
            if finding.name.is_empty() {
                NAMELESS.clone_into(&mut finding.name);
            }
            finding
        });
        let Some(first) = findings.next() else { return Ok(None) };
        let others = if is_final { Vec::new() } else { findings.collect() };
        Ok(Some(Answer::Found { first, others }))
    }
}

/// Findings of one head, in the order of precedence of their names.
#[derive(Default)]
struct HeadFindings {
    /// Findings of which the kind is reported.
    specific: Vec<Finding>,
    /// Reasons for a block without a kind.
    unspecific: Vec<Finding>,
}

impl HeadFindings {
    fn add(&mut self, kind: FindingKind, name: impl Into<String>) {
        self.specific.push(Finding { kind, name: name.into() });
    }

    fn add_unspecific(&mut self, name: impl Into<String>) {
        self.unspecific.push(Finding { kind: FindingKind::Refused, name: name.into() });
    }

    /// Adds names of infections and violations.
    fn add_names(&mut self, head: &IcapHead) {
        for header in NAMES {
            for name in values(head, header, NO_VIRUS) {
                self.add(kind::of_name(&name), name);
            }
        }
        // Texts that are no names, for findings without one.
        let mut without_name = Vec::new();
        for infection in head.all("x-infection-found") {
            let (kind, threat) = parse_infection(&infection);
            match threat {
                Some(threat) => self.add(kind, threat),
                None => without_name.push(Finding { kind, name: infection }),
            }
        }
        // Servers send this header only with findings, therefore an empty value counts.
        for violations in head.all("x-violations-found").filter(|value| value != "0") {
            if let Some(threats) = parse_violations(&violations) {
                for threat in threats {
                    self.add(kind::of_name(threat), threat);
                }
                continue;
            }
            // The name may be wrong, but is no part of the kind.
            let threat = violations.lines().nth(2).map(str::trim).unwrap_or_default();
            if threat.is_empty() {
                without_name.push(Finding { kind: FindingKind::Infected, name: violations });
            } else {
                self.add(FindingKind::Infected, threat);
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
                    None => self.add_unspecific(reason),
                }
            }
        }
        for result in values(head, "x-fsecure-scan-result", &["", "clean"]) {
            self.add(kind::of_result(&result), result);
        }
        if head.all("x-response-info").any(|value| is_block(&value)) {
            self.add_unspecific(BLOCKED);
        }
        for failure in head.all(NOT_SCANNED).filter(|value| names_scan_failure(value)) {
            self.add(FindingKind::Limit, failure);
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

/// Returns whether the first word is "SCANFAIL", ignoring case.
fn names_scan_failure(value: &str) -> bool {
    let word = value.split(|c: char| !c.is_ascii_alphanumeric()).next();
    word.is_some_and(|word| word.eq_ignore_ascii_case("scanfail"))
}

/// Returns the kind and the threat of `Type=0; Resolution=2; Threat=NAME;`. A repeated field makes the value an
/// infection, because a part of it may be the name of a file.
fn parse_infection(infection: &str) -> (FindingKind, Option<&str>) {
    let fields = || infection.split(';').filter_map(|field| field.trim().split_once('='));
    let values = |name: &'static str| {
        fields()
            .filter(move |(key, _)| key.trim().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    let threat = values("threat").find(|threat| !threat.is_empty());
    let text = threat.unwrap_or(infection);
    let types: Vec<_> = values("type").collect();
    let kind = match types.as_slice() {
        _ if values("threat").nth(1).is_some() => FindingKind::Infected,
        // Types of draft-stecher-icap-subid: 0 infection, 1 policy for mail, 2 limit of containers.
        ["1" | "2"] => kind::of_violation(text),
        [] | [_] => kind::of_name(text),
        _ => FindingKind::Infected,
    };
    (kind, threat)
}

/// Returns the threats of `X-Violations-Found`: a count, followed by four lines for each violation (file, threat,
/// problem, resolution; the latter two are numbers). Returns `None` if the count and the lines disagree, or if a
/// violation is invalid: the name of a file may contain line ends, and shift the lines.
fn parse_violations(violations: &str) -> Option<Vec<&str>> {
    let mut lines = violations.lines().map(str::trim);
    let count = lines.next()?;
    let lines: Vec<_> = lines.collect();
    let (records, rest) = lines.as_chunks::<4>();
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = |text: &str| is_digits(text.strip_prefix('-').unwrap_or(text));
    let is_counted = is_digits(count) && count.parse() == Ok(records.len());
    if !is_counted || records.is_empty() || !rest.is_empty() {
        return None;
    }
    let is_valid = |record: &[&str; 4]| {
        let [_, threat, problem, resolution] = record;
        !threat.is_empty() && is_number(problem) && is_number(resolution)
    };
    records.iter().all(is_valid).then(|| records.iter().map(|[_, threat, ..]| *threat).collect())
}

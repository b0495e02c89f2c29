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
//!
//! Each value of a repeated header counts, so that a harmless value cannot hide a finding.

use crate::message::IcapHead;

/// Name of a finding without a readable name.
const NAMELESS: &str = "unnamed finding";

/// Headers whose value is a name, by precedence, with the values that mean "no finding".
const NAMES: [(&str, &[&str]); 7] = [
    ("x-virus-id", NO_VIRUS),
    ("x-virus-name", NO_VIRUS),
    ("x-fsecure-infection-name", NO_VIRUS),
    ("x-block-reason", NO_BLOCK),
    ("x-blocked-reason", NO_BLOCK),
    ("x-blocked", NO_BLOCK),
    ("x-fsecure-scan-result", &["", "clean"]),
];

const NO_VIRUS: &[&str] = &["", "none", "no threat", "no threats"];
const NO_BLOCK: &[&str] = &["", "none", "no", "false", "0"];

/// Name of a finding that only `X-Response-Info` reports, whose value is not a name.
const BLOCKED: &str = "blocked by the ICAP server";

/// Returns the name of the finding, if the head contains one.
pub(crate) fn finding(head: &IcapHead) -> Option<String> {
    let [id, virus, secure, reasons @ ..] =
        NAMES.map(|(header, none)| first_name(head, header, none));
    // Servers send these headers only with findings, therefore empty values count.
    let infection = head.all("x-infection-found").next();
    let violation = head.all("x-violations-found").find(|value| value != "0");
    let blocked = head.all("x-response-info").any(|value| is_block(&value));
    let blocked = blocked.then(|| BLOCKED.to_owned());
    let threat = infection.as_deref().and_then(threat);
    let violation_name = violation.as_deref().and_then(first_violation);
    let names = [id, virus, secure, threat, violation_name].into_iter().chain(reasons);
    let mut names = names.chain([infection, violation, blocked]).flatten().peekable();
    names.peek()?;
    // Names that are empty after trimming are findings too.
    let name = names.map(|name| name.trim().to_owned()).find(|name| !name.is_empty());
    name.or_else(|| Some(NAMELESS.to_owned()))
}

/// Returns the first value of a header that is not one of `none`, ignoring case.
fn first_name(head: &IcapHead, header: &str, none: &[&str]) -> Option<String> {
    head.all(header).find(|value| !none.iter().any(|word| word.eq_ignore_ascii_case(value)))
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

/// Returns NAME of `Type=0; Resolution=2; Threat=NAME;`.
fn threat(infection: &str) -> Option<String> {
    let mut fields = infection.split(';').filter_map(|field| field.trim().split_once('='));
    fields.find_map(|(key, value)| key.eq_ignore_ascii_case("threat").then(|| value.to_owned()))
}

/// Returns the first threat. The value is a count, followed by four lines for each violation: file, threat, two
/// numbers.
fn first_violation(violations: &str) -> Option<String> {
    violations.lines().nth(2).map(str::to_owned)
}

//! What a server has found, by the headers that servers say it in: of ICAP, of the HTTP message in it, or behind the
//! body. A header that names a virus or a block outweighs the status of the answer.
//!
//! | header | servers | in answers about clean files |
//! |---|---|---|
//! | `X-Infection-Found` | c-icap, Symantec, ESET, Trend Micro, Kaspersky | absent |
//! | `X-Violations-Found` | c-icap, Symantec, Clearswift, OPSWAT | absent, or `0` |
//! | `X-Virus-ID` | Sophos, Kaspersky, ESET, Trend Micro, Fortinet | absent, or `no threats` (Kaspersky Web Traffic Security) |
//! | `X-Virus-Name`, `X-Block-Reason` | Skyhigh Web Gateway, Fortinet | absent, or empty where a rule always adds them |
//! | `X-Blocked` | Sophos | absent |
//! | `X-Blocked-Reason` | OPSWAT | absent |
//! | `X-FSecure-Scan-Result`, `X-FSecure-Infection-Name` | F-Secure | `clean`, and absent |
//! | `X-Response-Info` | Kaspersky, ESET, OPSWAT, c-icap | `Allowed`, `passed` |
//!
//! Of a header that stands several times, each value counts: one that says "none" hides no other.

use super::message::Head;

/// Name of a finding without a readable name.
const NAMELESS: &str = "found, and not named";

/// Headers whose value is a name, in the order in which names are taken, and the values that name nothing.
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

/// Name of a block that only `X-Response-Info` reports: its value is no name.
const BLOCKED: &str = "blocked by the ICAP server";

/// The name of what was found, if anything was.
pub(super) fn finding(head: &Head) -> Option<String> {
    let [id, virus, secure, reasons @ ..] = NAMES.map(|(header, none)| named(head, header, none));
    // Servers send these two for findings alone, so an empty value counts.
    let infection = head.all("x-infection-found").next();
    let violation = head.all("x-violations-found").find(|value| value != "0");
    // "Blocked", "blocked", "BLOCKED".
    let blocks = |value: String| value.to_ascii_lowercase().contains("block");
    let blocked = head.all("x-response-info").any(blocks).then(|| BLOCKED.to_owned());
    let threat = infection.as_deref().and_then(threat);
    let violated = violation.as_deref().and_then(first_violation);
    let found = [id, virus, secure, threat, violated].into_iter().chain(reasons);
    let mut found = found.chain([infection, violation, blocked]).flatten().peekable();
    found.peek()?;
    // Something was found, whatever it is called.
    let name = found.map(|name| name.trim().to_owned()).find(|name| !name.is_empty());
    name.or_else(|| Some(NAMELESS.to_owned()))
}

/// The first value of a header that is none of these, in whatever case.
fn named(head: &Head, header: &str, none: &[&str]) -> Option<String> {
    head.all(header).find(|value| !none.iter().any(|it| it.eq_ignore_ascii_case(value)))
}

/// `Type=0; Resolution=2; Threat=NAME;`
fn threat(infection: &str) -> Option<String> {
    let mut parts = infection.split(';').filter_map(|part| part.trim().split_once('='));
    parts.find_map(|(key, value)| key.eq_ignore_ascii_case("threat").then(|| value.to_owned()))
}

/// How many, and then four lines for each: file, threat, and two numbers.
fn first_violation(violations: &str) -> Option<String> {
    violations.lines().nth(2).map(str::to_owned)
}

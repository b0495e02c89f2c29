//! Registrable domains of host names.

use std::net::IpAddr;

/// Returns the part of a host name that one registrant controls, in lower case and without a trailing dot. An IP
/// literal, and a name that is itself a public suffix, is its own domain.
#[must_use]
pub(crate) fn registrable_domain(host: &str) -> String {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    if literal.parse::<IpAddr>().is_ok() {
        return host;
    }
    psl::domain_str(&host).map_or_else(|| host.clone(), str::to_owned)
}

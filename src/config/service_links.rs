//! Recognises the environment variables that Kubernetes sets in each pod for a service of the namespace. For a service
//! named `mcs` they begin with `MCS_`, like the variables of this program. Source: Kubernetes, "Accessing the Service",
//! environment variables, and the older "Docker links" format.

use std::net::IpAddr;

/// Returns whether a variable is of a service. The value decides too: `MCS_WEB_PORT=8081` is a misspelt
/// `MCS_WEB__PORT`, `MCS_WEB_PORT=tcp://10.0.0.1:8080` belongs to a service `mcs-web`.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_address = || value.parse::<IpAddr>().is_ok();
    if name.ends_with("_SERVICE_HOST") {
        return is_address();
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return is_number(value);
    }
    if name.ends_with("_PORT") && is_link_url(value) {
        return true;
    }
    // `…_PORT_8080_TCP` and its parts.
    let Some((_, link)) = name.rsplit_once("_PORT_") else { return false };
    let parts: Vec<_> = link.split('_').collect();
    let is_protocol = |text: &str| ["TCP", "UDP", "SCTP"].contains(&text);
    match parts.as_slice() {
        [port, protocol, rest @ ..] if is_number(port) && is_protocol(protocol) => match rest {
            [] => is_link_url(value) || is_number(value),
            ["PORT"] => is_number(value),
            ["PROTO"] => is_protocol(&value.to_ascii_uppercase()),
            ["ADDR"] => is_address(),
            _ => false,
        },
        _ => false,
    }
}

/// Whether this is a URL like `tcp://10.0.0.1:8080`.
fn is_link_url(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_variables_of_services_by_name_and_value() {
        for (name, value, expected) in [
            ("MCS_SERVICE_HOST", "10.96.0.7", true),
            ("MCS_SERVICE_HOST", "fd00::7", true),
            ("MCS_SERVICE_PORT", "8080", true),
            ("MCS_SERVICE_PORT_HTTP", "8080", true),
            ("MCS_SERVICE_PORT_HTTP_ALT", "8080", true),
            ("MCS_PORT", "tcp://10.96.0.7:8080", true),
            ("MCS_PORT_8080_TCP", "tcp://10.96.0.7:8080", true),
            ("MCS_PORT_8080_TCP_PROTO", "tcp", true),
            ("MCS_PORT_8080_TCP_PORT", "8080", true),
            ("MCS_PORT_8080_TCP_ADDR", "10.96.0.7", true),
            ("MCS_PORT_53_UDP_ADDR", "10.96.0.7", true),
            ("MCS_SCANNER_PORT_8080_TCP_ADDR", "10.96.0.7", true),
            ("MCS_WEB_PORT", "tcp://10.96.0.7:8080", true),
            ("MCS_WEB_PORT", "8081", false),
            ("MCS_PORT", "8081", false),
            ("MCS_WEB__PORT", "8081", false),
            ("MCS_SERVICE_HOST", "scanner.example", false),
            ("MCS_SERVICE_PORT", "http", false),
            ("MCS_PORT_HTTP_TCP", "tcp://10.96.0.7:8080", false),
            ("MCS_PORT_8080_HTTP", "tcp://10.96.0.7:8080", false),
            ("MCS_PORT_8080_TCP_NAME", "x", false),
            ("MCS_X", "1", false),
        ] {
            assert_eq!(is_service_link(name, value), expected, "{name}={value}");
        }
    }
}

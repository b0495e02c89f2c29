//! Parameters of the API.

use std::time::{Duration, SystemTime};

use axum::http::Uri;
use url::form_urlencoded;

use super::error::AdminError;
use crate::{
    incident::{IncidentFilter, IncidentPosition},
    media::{MediaId, parse_hex},
    scan::{cache::VerdictFilter, recent::MAX_SCANS},
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

/// Maximum number of incidents in a reply.
pub(super) const MAX_INCIDENTS: usize = 500;

/// Parses the query of `GET /v1/verdicts`.
pub(super) fn verdict_filter(uri: &Uri, now: SystemTime) -> Result<VerdictFilter, AdminError> {
    let mut filter = VerdictFilter { not_clean: false, since: None, limit: DEFAULT_LIMIT };
    for (name, value) in parameters(uri, &["not_clean", "since", "limit"])? {
        let invalid = |expected| Err(AdminError::Invalid(format!("{name}: expected {expected}")));
        match &*name {
            "not_clean" => match &*value {
                "true" => filter.not_clean = true,
                "false" => filter.not_clean = false,
                _ => return invalid("true or false"),
            },
            "since" => match value.parse().ok().map(Duration::from_secs) {
                Some(age) => filter.since = now.checked_sub(age),
                None => return invalid("a number of seconds"),
            },
            _ => match value.parse() {
                Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => filter.limit = limit,
                _ => return invalid("a number from 1 to 10000"),
            },
        }
    }
    Ok(filter)
}

/// Parses the query of `GET /v1/recent`. Returns whether clean files are left out, and the maximum number.
pub(super) fn recent_filter(uri: &Uri) -> Result<(bool, usize), AdminError> {
    let (mut not_clean, mut limit) = (false, DEFAULT_LIMIT);
    for (name, value) in parameters(uri, &["not_clean", "limit"])? {
        let invalid = |expected| Err(AdminError::Invalid(format!("{name}: expected {expected}")));
        match (&*name, &*value) {
            ("not_clean", "true") => not_clean = true,
            ("not_clean", "false") => not_clean = false,
            ("not_clean", _) => return invalid("true or false"),
            (_, number) => match number.parse() {
                Ok(number) if (1..=MAX_SCANS).contains(&number) => limit = number,
                _ => return invalid("a number from 1 to 500"),
            },
        }
    }
    Ok((not_clean, limit))
}

/// Parses the query of `GET /v1/incidents`.
pub(super) fn incident_filter(uri: &Uri) -> Result<IncidentFilter, AdminError> {
    let mut filter = IncidentFilter { limit: DEFAULT_LIMIT, ..IncidentFilter::default() };
    for (name, value) in parameters(uri, &["state", "after", "limit"])? {
        read_incident_parameter(&mut filter, &name, &value)?;
    }
    Ok(filter)
}

/// Parses the query of the operator page with incidents, whose form names all states "all".
pub(super) fn incident_page_filter(uri: &Uri, limit: usize) -> Result<IncidentFilter, AdminError> {
    let mut filter = IncidentFilter { limit, ..IncidentFilter::default() };
    for (name, value) in parameters(uri, &["state", "after"])? {
        if (&*name, &*value) != ("state", "all") {
            read_incident_parameter(&mut filter, &name, &value)?;
        }
    }
    Ok(filter)
}

fn read_incident_parameter(
    filter: &mut IncidentFilter,
    name: &str,
    value: &str,
) -> Result<(), AdminError> {
    let invalid = |expected| Err(AdminError::Invalid(format!("{name}: expected {expected}")));
    match (name, value) {
        ("state", "waiting") => filter.is_waiting = Some(true),
        ("state", "finished") => filter.is_waiting = Some(false),
        ("state", _) => return invalid("waiting or finished"),
        ("after", position) => match parse_position(position) {
            Some(position) => filter.after = Some(position),
            None => return invalid("the value of \"next\" in an earlier reply"),
        },
        (_, number) => match number.parse() {
            Ok(number) if (1..=MAX_INCIDENTS).contains(&number) => filter.limit = number,
            _ => return invalid("a number from 1 to 500"),
        },
    }
    Ok(())
}

fn parse_position(text: &str) -> Option<IncidentPosition> {
    let (found, id) = text.split_once('-')?;
    parse_hex::<16>(id)?;
    Some(IncidentPosition { found: found.parse().ok()?, id: id.to_owned() })
}

/// Returns a position as [`incident_filter`] parses it.
pub(super) fn format_position(position: &IncidentPosition) -> String {
    format!("{}-{}", position.found, position.id)
}

/// Parses the query of `GET /v1/media`.
pub(super) fn mxc(uri: &Uri) -> Result<MediaId, AdminError> {
    let missing = || AdminError::Invalid("mxc: missing, expected a media URI".to_owned());
    let (_, value) = parameters(uri, &["mxc"])?.into_iter().next().ok_or_else(missing)?;
    parse_mxc(&value)
}

pub(super) fn parse_mxc(uri: &str) -> Result<MediaId, AdminError> {
    MediaId::from_mxc(uri).map_err(|error| AdminError::Invalid(format!("mxc: {error}")))
}

pub(super) fn parse_sha256(digits: &str) -> Result<[u8; 32], AdminError> {
    let invalid =
        || AdminError::Invalid("content: expected a SHA-256 of 64 hexadecimal digits".to_owned());
    parse_hex(digits).ok_or_else(invalid)
}

/// Returns the parameters of a query. Rejects unknown ones and repetitions.
pub(super) fn parameters(uri: &Uri, known: &[&str]) -> Result<Vec<(String, String)>, AdminError> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if !known.contains(&&*name) || found.iter().any(|(other, _)| *other == name) {
            let known = known.join(", ");
            return Err(AdminError::Invalid(format!(
                "unknown or repeated parameter, expected {known}"
            )));
        }
        found.push((name.into_owned(), value.into_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &str) -> Result<VerdictFilter, AdminError> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        verdict_filter(&format!("/v1/verdicts{query}").parse().unwrap(), now)
    }

    #[test]
    fn filters_are_parsed() {
        let parsed = filter("?not_clean=true&since=400&limit=7").unwrap();
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(600);
        assert!(parsed.not_clean && parsed.since == Some(since) && parsed.limit == 7);
        let parsed = filter("").unwrap();
        assert!(!parsed.not_clean && parsed.since.is_none() && parsed.limit == 100);
    }

    #[test]
    fn other_parameters_are_rejected() {
        for (query, message) in [
            ("?limit=0", "limit: expected a number from 1 to 10000"),
            ("?limit=10001", "limit: expected a number from 1 to 10000"),
            ("?since=1d", "since: expected a number of seconds"),
            ("?not_clean=1", "not_clean: expected true or false"),
            ("?limit=1&limit=2", "unknown or repeated parameter"),
            ("?other=1", "unknown or repeated parameter, expected not_clean, since, limit"),
        ] {
            let error = filter(query).unwrap_err().to_string();
            assert!(error.contains(message), "{query}: {error}");
        }
        for query in ["?limit=0", "?limit=501", "?not_clean=1", "?since=1"] {
            assert!(recent_filter(&format!("/v1/recent{query}").parse().unwrap()).is_err());
        }
        let parsed = recent_filter(&"/v1/recent?not_clean=true&limit=500".parse().unwrap());
        assert_eq!(parsed.unwrap(), (true, MAX_SCANS));
        for query in ["?limit=0", "?limit=501", "?state=all", "?after=1", "?after=x-00", "?since=1"]
        {
            assert!(incident_filter(&format!("/v1/incidents{query}").parse().unwrap()).is_err());
        }
        let after = format!("17-{}", "0a".repeat(16));
        let query = format!("/v1/incidents?state=waiting&limit=500&after={after}");
        let parsed = incident_filter(&query.parse().unwrap()).unwrap();
        assert_eq!((parsed.is_waiting, parsed.limit), (Some(true), MAX_INCIDENTS));
        assert_eq!(format_position(&parsed.after.unwrap()), after);
        for query in ["", "?mxc=", "?mxc=abc", "?mxc=mxc://a/b/c"] {
            assert!(mxc(&format!("/v1/media{query}").parse().unwrap()).is_err(), "{query}");
        }
        assert!(parse_sha256("abc").is_err());
    }
}

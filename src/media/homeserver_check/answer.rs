//! Interprets one response of a server that may be a homeserver. Matrix specification, client-server API, sections "API
//! standards" and "Server discovery".

use reqwest::{Response, Url, header};
use serde_json::Value;
use tokio::time::Instant;

use crate::media::http_util::{read_small, without_credentials};

/// Maximum length of an error code in messages, characters.
const MAX_ERRCODE: usize = 100;

/// Maximum size of a body, bytes. Synapse's list of versions has about 2 KiB.
const MAX_BODY: usize = 256 << 10;

/// Route with the versions of the API for clients.
pub(super) const VERSIONS: &str = "_matrix/client/versions";

/// Route of downloads with access tokens.
pub(super) const MEDIA: &str = "_matrix/client/v1/media/download";

/// What a response says about its sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ServerAnswer {
    /// The list of versions that only homeservers send.
    Versions,
    /// The public key or an error of a Matrix content scanner.
    Scanner,
    /// A standard error of Matrix with the start of its `errcode`.
    MatrixError { status: u16, errcode: String },
    /// A redirect to this URL, without credentials.
    Redirect { status: u16, target: Option<Url> },
    /// A gateway or an overloaded server.
    Unavailable { status: u16 },
    /// Anything else.
    Other { status: u16, content: AnswerContent, body: Vec<u8> },
}

/// Kind of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AnswerContent {
    Html,
    Json,
    Other,
}

impl ServerAnswer {
    /// Reads the response to a request for `url`.
    pub(super) async fn read(url: &Url, response: Response, deadline: Instant) -> Self {
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let is_html = header(header::CONTENT_TYPE).is_some_and(|text| text.contains("html"));
        let location = header(header::LOCATION).map(str::to_owned);
        if let (300..=399, Some(location)) = (status, location) {
            let target = url.join(&location).ok().map(without_credentials);
            return Self::Redirect { status, target };
        }
        let body = read_small(response, MAX_BODY, deadline).await.unwrap_or_default();
        Self::parse(status, is_html, body)
    }

    fn parse(status: u16, is_html: bool, body: Vec<u8>) -> Self {
        let json = serde_json::from_slice::<Value>(&body).ok();
        let field = |name| json.as_ref().and_then(|json| json.get(name));
        if let Some(errcode) = field("errcode").and_then(Value::as_str) {
            let errcode = errcode.chars().take(MAX_ERRCODE).collect();
            return Self::MatrixError { status, errcode };
        }
        let is_versions = field("versions")
            .and_then(Value::as_array)
            .is_some_and(|versions| !versions.is_empty() && versions.iter().all(Value::is_string));
        if status == 200 && is_versions {
            return Self::Versions;
        }
        let is_text = |name| field(name).is_some_and(Value::is_string);
        if status == 200 && is_text("public_key") || is_text("reason") && is_text("info") {
            return Self::Scanner;
        }
        if matches!(status, 502..=504) {
            return Self::Unavailable { status };
        }
        let content = match json {
            Some(Value::Object(_) | Value::Array(_)) => AnswerContent::Json,
            _ if is_html || body.trim_ascii_start().starts_with(b"<") => AnswerContent::Html,
            _ => AnswerContent::Other,
        };
        Self::Other { status, content, body }
    }

    /// Whether a homeserver, or a media repository, supports the route that this is the answer of.
    pub(super) fn is_supported_route(&self) -> bool {
        match self {
            Self::MatrixError { errcode, .. } => errcode != "M_UNRECOGNIZED",
            // Homeservers redirect downloads to other storage.
            Self::Redirect { status, .. } => matches!(status, 307 | 308),
            _ => false,
        }
    }

    /// Describes the answer, for the operator.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Versions => "a list of Matrix versions".to_owned(),
            Self::Scanner => "a response of a content scanner".to_owned(),
            Self::MatrixError { status, errcode } => format!("status {status} with {errcode}"),
            Self::Redirect { status, target } => {
                let target = target.as_ref().map(|url| format!(" to {url}"));
                format!("a redirect{} (status {status})", target.unwrap_or_default())
            }
            Self::Unavailable { status } => format!("status {status}"),
            Self::Other { status, content: AnswerContent::Html, .. } => {
                format!("a web page (status {status})")
            }
            Self::Other { status, content: AnswerContent::Json, .. } => {
                format!("other JSON (status {status})")
            }
            Self::Other { status, content: AnswerContent::Other, .. } => {
                format!("another response (status {status})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(status: u16, body: &str) -> ServerAnswer {
        ServerAnswer::parse(status, false, body.as_bytes().to_vec())
    }

    #[test]
    fn only_matrix_json_counts_as_a_homeserver() {
        assert_eq!(parse(200, r#"{"versions":["r0.6.1","v1.11"]}"#), ServerAnswer::Versions);
        assert_eq!(parse(200, r#"{"public_key":"AAAA"}"#), ServerAnswer::Scanner);
        assert_eq!(parse(401, r#"{"reason":"M_MISSING_TOKEN","info":"…"}"#), ServerAnswer::Scanner);
        let error = ServerAnswer::MatrixError { status: 404, errcode: "M_UNRECOGNIZED".to_owned() };
        assert_eq!(parse(404, r#"{"errcode":"M_UNRECOGNIZED","error":""}"#), error);
        assert!(!error.is_supported_route());
        assert!(parse(401, r#"{"errcode":"M_MISSING_TOKEN"}"#).is_supported_route());
        assert_eq!(parse(502, "<html>"), ServerAnswer::Unavailable { status: 502 });
        for (status, body, expected) in [
            (200, r#"{"versions":[]}"#, AnswerContent::Json),
            (200, r#"{"versions":[1]}"#, AnswerContent::Json),
            (404, r#"{"versions":["v1.11"]}"#, AnswerContent::Json),
            (200, "[]", AnswerContent::Json),
            (200, " \n<!DOCTYPE html>", AnswerContent::Html),
            (404, "<html>", AnswerContent::Html),
            (200, "ok", AnswerContent::Other),
            (500, "", AnswerContent::Other),
        ] {
            let ServerAnswer::Other { content, .. } = parse(status, body) else { panic!("{body}") };
            assert_eq!(content, expected, "{body}");
        }
    }
}

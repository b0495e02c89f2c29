//! Checks of each request: host, token, origin.

use std::{net::IpAddr, time::Instant};

use axum::http::{HeaderMap, Method, Request, Uri, header, request::Parts, uri::Authority};
use tracing::warn;

use super::{
    error::AdminError,
    failures::FailureLimit,
    token::{AdminTokens, TokenIdentity},
};
use crate::{
    http::{Peer, host},
    media::split_port,
};

/// What requests are checked against.
#[derive(Debug)]
pub(super) struct RequestGuard {
    pub(super) tokens: AdminTokens,
    pub(super) hosts: Vec<String>,
    pub(super) failures: FailureLimit,
}

impl RequestGuard {
    /// Returns the token of a request to the API, or why the request is rejected.
    pub(super) fn check_api<B>(
        &self,
        request: &Request<B>,
        peer: Peer,
    ) -> Result<TokenIdentity, AdminError> {
        self.check_host(request)?;
        let token = self.check_token(request.headers(), peer)?;
        if !is_safe(request.method()) {
            check_origin(request.headers())?;
        }
        Ok(token)
    }

    /// Returns why a request to the operator page is rejected, if it is. The page checks the session.
    pub(super) fn check_page<B>(&self, request: &Request<B>) -> Result<(), AdminError> {
        self.check_host(request)?;
        if is_safe(request.method()) {
            return Ok(());
        }
        check_form_origin(request.headers())
    }

    /// Rejects names that are not configured: a page in a browser could have its own name resolve to this listener (DNS
    /// rebinding), which would make its requests same-origin.
    fn check_host<B>(&self, request: &Request<B>) -> Result<(), AdminError> {
        host::check(request).map_err(AdminError::Host)?;
        let authority = request.uri().authority().map(Authority::as_str);
        let value = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
        let unknown = AdminError::Host(
            "the host is neither an address nor in admin.hosts; for the socket, use http://localhost/",
        );
        for host in [authority, value].into_iter().flatten() {
            let name = split_port(host).0;
            let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let is_address = literal.unwrap_or(name).parse::<IpAddr>().is_ok();
            if !is_address && !self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name)) {
                return Err(unknown);
            }
        }
        if authority.or(value).is_none() { Err(unknown) } else { Ok(()) }
    }

    fn check_token(&self, headers: &HeaderMap, peer: Peer) -> Result<TokenIdentity, AdminError> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let token = match (values.next(), values.next()) {
            (Some(value), None) => bearer(value.as_bytes()),
            _ => None,
        };
        self.verify(token, peer)
    }

    /// Returns which token this is, or why it is rejected. A correct token is always accepted: wrong tokens from the same
    /// peer must not lock the operator out.
    pub(super) fn verify(
        &self,
        token: Option<&[u8]>,
        peer: Peer,
    ) -> Result<TokenIdentity, AdminError> {
        if let Some(identity) = token.and_then(|token| self.tokens.find(token)) {
            return Ok(identity);
        }
        let reply = self.failures.record(peer, Instant::now());
        if reply.is_logged {
            let has_token = token.is_some();
            warn!(peer = %describe(peer), has_token, "request to [admin] without the right token");
        }
        Err(if reply.is_limited { AdminError::TooManyFailures } else { AdminError::Unauthorized })
    }
}

/// Returns the token of `Bearer TOKEN` (RFC 6750, section 2.1). The scheme is case-insensitive.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn is_safe(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// Rejects forms that a page of another origin has sent, and requests that do not state their origin. Because of
/// `Referrer-Policy: no-referrer`, browsers send `Origin: null` with forms of the page itself (Fetch standard, "append a
/// request `Origin` header"); `Sec-Fetch-Site`, which pages cannot set, tells these from others. Browsers send it to
/// https and loopback addresses only.
fn check_form_origin(headers: &HeaderMap) -> Result<(), AdminError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text("sec-fetch-site"), text("origin")) {
        (Some("same-origin"), Some("null")) => Ok(()),
        (None, None | Some("null")) => Err(AdminError::UnknownOrigin),
        _ => check_origin(headers),
    }
}

/// Rejects requests that a page of another origin has made.
fn check_origin(headers: &HeaderMap) -> Result<(), AdminError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text("sec-fetch-site")
        && !matches!(site, "same-origin" | "none")
    {
        return Err(AdminError::CrossOrigin);
    }
    if let Some(origin) = text("origin") {
        let origin = origin.parse::<Uri>().ok();
        let authority = origin.as_ref().and_then(|origin| origin.authority());
        let host = text("host").unwrap_or_default();
        if !authority.is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(host)) {
            return Err(AdminError::CrossOrigin);
        }
    }
    Ok(())
}

/// Returns whether a change has a body of JSON.
pub(super) fn has_json(head: &Parts) -> bool {
    let mut values = head.headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.to_str().ok().and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Returns the peer for the log.
pub(super) fn describe(peer: Peer) -> String {
    match peer {
        Peer::Address(address) => address.to_string(),
        Peer::Local { uid: Some(uid) } => format!("uid {uid}"),
        Peer::Local { uid: None } => "unknown user".to_owned(),
    }
}

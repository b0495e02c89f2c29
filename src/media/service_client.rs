//! Client of services that the operator has configured: their addresses are exempt from the address rules. Never follows
//! redirects, so that a secret is sent to the configured host only.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, Method, Proxy, Request, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect,
};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{
    http_util::read_small,
    resolver::{NameService, Resolver},
    retry_after::retry_after,
    setup_error::OutboundSetupError,
    tls,
};
use crate::config::sections::download::Settings;

/// Time limit of a request, until the end of the response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a response that is read, bytes.
const MAX_RESPONSE: usize = 64 << 10;

/// Client of services. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServiceClient {
    client: Client,
    timeout: Duration,
}

/// A request with a body of JSON.
#[derive(Clone, Debug)]
pub struct ServiceRequest {
    pub method: Method,
    pub url: Url,
    /// Headers in addition to the type of the body. Secrets are marked as sensitive.
    pub headers: HeaderMap,
    /// Absent for a GET.
    pub body: Option<Vec<u8>>,
}

/// A response.
#[derive(Clone, Debug)]
pub struct ServiceResponse {
    pub status: u16,
    /// `None` if it is incomplete, or larger than 64 KiB.
    pub body: Option<Vec<u8>>,
    /// Delay that the service asks for.
    pub retry_after: Option<Duration>,
}

/// Reason why there is no response. Contains no URL.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ServiceError {
    /// No response within 10 s.
    #[error("no response within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// No connection, or no HTTP.
    #[error("the request failed")]
    Failed(#[source] Arc<reqwest::Error>),
}

/// The delay in a Matrix error (client-server API, section "Rate limiting").
#[derive(Deserialize)]
struct RateLimit {
    retry_after_ms: f64,
}

impl ServiceClient {
    /// Creates a client with the certificates and the proxy of `[download]`. Only https passes the proxy, which would read
    /// secrets in plain http. Blocking: reads the system's certificates.
    ///
    /// # Errors
    /// If the certificates or the proxy cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, OutboundSetupError> {
        let roots = tls::roots(settings.ca_certificates.as_deref())?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls::client_config(roots)?)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(settings.connect_timeout)
            .user_agent(concat!("matrix-content-scanner/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Resolver::new(NameService::system(), false));
        if let Some(url) = &settings.proxy {
            let proxy = Proxy::https(url.clone()).map_err(OutboundSetupError::client)?;
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(OutboundSetupError::client)?;
        Ok(Self { client, timeout: TIMEOUT })
    }

    /// Sends a request, once.
    ///
    /// # Errors
    /// If there is no response. Every status is a response, also that of a redirect.
    pub async fn send(&self, request: ServiceRequest) -> Result<ServiceResponse, ServiceError> {
        let ServiceRequest { method, url, headers, body } = request;
        let until = Instant::now() + self.timeout;
        let mut request = Request::new(method, url);
        *request.headers_mut() = headers;
        if let Some(body) = body {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
            *request.body_mut() = Some(body.into());
        }
        let failed = |error: reqwest::Error| ServiceError::Failed(Arc::new(error.without_url()));
        let response = timeout_at(until, self.client.execute(request))
            .await
            .map_err(|_| ServiceError::TimedOut)?
            .map_err(failed)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = read_small(response, MAX_RESPONSE, until).await;
        let limit = body.as_deref().and_then(|body| serde_json::from_slice::<RateLimit>(body).ok());
        let limit = limit.map(|limit| limit.retry_after_ms);
        Ok(ServiceResponse {
            status,
            body,
            retry_after: retry_after(&headers, limit, SystemTime::now()),
        })
    }

    /// Changes the time limit of requests.
    #[cfg(test)]
    pub(crate) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }
}

/// Returns the headers with a token.
#[must_use]
pub fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Tokens are visible ASCII.
    if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {token}")) {
        value.set_sensitive(true);
        headers.insert(reqwest::header::AUTHORIZATION, value);
    }
    headers
}

/// Returns a URL below a base URL. Each segment is encoded, whatever characters it has.
#[must_use]
pub fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    // Fails only for URLs without a host.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cannot_leave_the_path() {
        let base = Url::parse("http://localhost:8008/matrix/").unwrap();
        let url = below(&base, &["a", "[::1]:8448", "x/..?y#z", "!room:example.org"]);
        let expected = "http://localhost:8008/matrix/a/[::1]:8448/x%2F..%3Fy%23z/!room:example.org";
        assert_eq!(url.as_str(), expected);
    }

    #[test]
    fn tokens_are_not_printed() {
        let printed = format!("{:?}", bearer("secret-token"));
        assert!(printed.contains("Sensitive") && !printed.contains("secret-token"), "{printed}");
    }
}

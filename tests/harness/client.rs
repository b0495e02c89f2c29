//! HTTP client for requests to the program, as Matrix clients send them.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::Value;

/// Path prefix of the contract's routes.
pub const PREFIX: &str = "/_matrix/media_proxy/unstable";

/// Client of one scanner process.
#[derive(Clone, Debug)]
pub struct TestClient {
    http: reqwest::Client,
    base: String,
}

/// Complete response.
#[derive(Debug)]
pub struct TestResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl TestClient {
    /// Creates a client of the program at `address` (host and port).
    pub fn new(address: &str) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(super::TEST_TIMEOUT)
            .tls_backend_preconfigured(tls())
            .build()
            .expect("build HTTP client");
        Self { http, base: format!("http://{address}") }
    }

    /// Returns host and port.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// Returns a request builder for a path below the contract's prefix.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{PREFIX}{path}", self.base))
    }

    /// Returns a request builder for an absolute path.
    pub fn request_outside_prefix(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends GET with a token that the homeserver accepts.
    pub async fn get(&self, path: &str) -> TestResponse {
        send(self.request(Method::GET, path).bearer_auth(super::homeserver::TOKEN)).await
    }

    /// Sends GET without a token.
    pub async fn get_without_token(&self, path: &str) -> TestResponse {
        send(self.request(Method::GET, path)).await
    }

    /// Sends POST with a JSON body and the token. Like the Rust SDK, sends no Content-Type.
    pub async fn post(&self, path: &str, body: &Value) -> TestResponse {
        self.post_bytes(path, body.to_string()).await
    }

    /// Sends POST with a body and the token.
    pub async fn post_bytes(&self, path: &str, body: impl Into<reqwest::Body>) -> TestResponse {
        let request = self.request(Method::POST, path).bearer_auth(super::homeserver::TOKEN);
        send(request.body(body)).await
    }

    /// Fetches the server's public key.
    pub async fn public_key(&self) -> String {
        let response = self.get_without_token("/public_key").await;
        response.json()["public_key"].as_str().expect("public_key is a string").to_owned()
    }
}

/// Sends a request and reads the complete response.
pub async fn send(request: reqwest::RequestBuilder) -> TestResponse {
    let response = request.send().await.expect("response");
    TestResponse {
        status: response.status(),
        headers: response.headers().clone(),
        body: response.bytes().await.expect("complete body"),
    }
}

/// Sends a request and aborts it after `time`. Panics if the response arrives earlier.
pub async fn send_and_abort(request: reqwest::RequestBuilder, time: Duration) {
    let response = tokio::time::timeout(time, request.send()).await;
    assert!(response.is_err(), "received a response before the abort: {response:?}");
}

impl TestResponse {
    /// Parses the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Returns a header's value. Panics unless the header occurs exactly once.
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name} in {:?}", self.headers);
        values[0].to_str().expect("visible ASCII")
    }

    /// Asserts that this is an error response of the contract with CORS headers and no additional fields.
    #[track_caller]
    pub fn assert_error(&self, status: u16, reason: &str) {
        assert_eq!(self.status.as_u16(), status, "{:?}", String::from_utf8_lossy(&self.body));
        let json = self.json();
        let object = json.as_object().expect("JSON object");
        assert_eq!(object["reason"], reason, "{json}");
        assert!(object["info"].is_string(), "{json}");
        assert_eq!(object.len(), 2, "expected exactly reason and info: {json}");
        assert_eq!(self.header("access-control-allow-origin"), "*");
        assert_eq!(self.header("content-type"), "application/json");
    }

    /// Asserts that this is the verdict for a clean file.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert_eq!(self.status, 200, "{:?}", String::from_utf8_lossy(&self.body));
        let json = self.json();
        assert_eq!(json["clean"], true, "{json}");
        assert!(json["info"].as_str().expect("string").starts_with("File clean at 20"), "{json}");
    }

    /// Asserts that this is the verdict for a file that is not clean, with this info.
    #[track_caller]
    pub fn assert_not_clean(&self, info: &str) {
        assert_eq!(self.status, 200, "{:?}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.json(), serde_json::json!({ "clean": false, "info": info }));
    }

    /// Asserts that this is a media response with these bytes.
    #[track_caller]
    pub fn assert_media(&self, bytes: &[u8]) {
        assert_eq!(self.status, 200, "{:?}", String::from_utf8_lossy(&self.body));
        assert!(
            self.body == bytes,
            "body of {} bytes differs from the expected {} bytes",
            self.body.len(),
            bytes.len()
        );
    }
}

/// Returns a TLS configuration. These tests use plain HTTP, but reqwest requires a provider.
fn tls() -> rustls::ClientConfig {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("provider supports its default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

//! Requests to the program as real clients make them.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::Value;

/// Where the contract's routes are.
pub const PREFIX: &str = "/_matrix/media_proxy/unstable";

/// A client of one program.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// What came back, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    /// A client of the program at `address` (host and port).
    pub fn new(address: &str) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(super::PATIENCE)
            .tls_backend_preconfigured(tls())
            .build()
            .expect("a client");
        Self { http, base: format!("http://{address}") }
    }

    /// A request to a path below the contract's prefix, to be added to.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{PREFIX}{path}", self.base))
    }

    /// A request to any path.
    pub fn elsewhere(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// GET with the token that the homeserver knows.
    pub async fn get(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path).bearer_auth(super::homeserver::TOKEN)).await
    }

    /// GET without a token.
    pub async fn get_without_token(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path)).await
    }

    /// POST of a JSON body, with the token, as the Rust SDK sends it: without a Content-Type.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_bytes(path, body.to_string()).await
    }

    /// POST of any body, with the token.
    pub async fn post_bytes(&self, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        let request = self.request(Method::POST, path).bearer_auth(super::homeserver::TOKEN);
        send(request.body(body)).await
    }

    /// The server's public key.
    pub async fn public_key(&self) -> String {
        let reply = self.get_without_token("/public_key").await;
        reply.json()["public_key"].as_str().expect("a key").to_owned()
    }
}

/// Sends a request and takes the whole answer.
pub async fn send(request: reqwest::RequestBuilder) -> Reply {
    let answer = request.send().await.expect("an answer");
    Reply {
        status: answer.status(),
        headers: answer.headers().clone(),
        body: answer.bytes().await.expect("a whole body"),
    }
}

/// Sends a request of which the test has no use for the answer, and gives it up after `time`.
pub async fn send_and_hang_up(request: reqwest::RequestBuilder, time: Duration) {
    let answer = tokio::time::timeout(time, request.send()).await;
    assert!(answer.is_err(), "it was answered before it could hang up: {answer:?}");
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// A header's text; fails where it is absent or doubled.
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name} in {:?}", self.headers);
        values[0].to_str().expect("text")
    }

    /// Asserts that this is the contract's error, no more and no less, with CORS.
    #[track_caller]
    pub fn is_error(&self, status: u16, reason: &str) {
        assert_eq!(self.status.as_u16(), status, "{:?}", String::from_utf8_lossy(&self.body));
        let json = self.json();
        let object = json.as_object().expect("an object");
        assert_eq!(object["reason"], reason, "{json}");
        assert!(object["info"].is_string(), "{json}");
        assert_eq!(object.len(), 2, "exactly reason and info: {json}");
        assert_eq!(self.header("access-control-allow-origin"), "*");
        assert_eq!(self.header("content-type"), "application/json");
    }

    /// Asserts that this is the verdict of a clean file.
    #[track_caller]
    pub fn is_clean(&self) {
        assert_eq!(self.status, 200, "{:?}", String::from_utf8_lossy(&self.body));
        let json = self.json();
        assert_eq!(json["clean"], true, "{json}");
        assert!(json["info"].as_str().expect("a string").starts_with("File clean at 20"), "{json}");
    }

    /// Asserts that this is the verdict of a file that is not clean, with this info.
    #[track_caller]
    pub fn is_not_clean(&self, info: &str) {
        assert_eq!(self.status, 200, "{:?}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.json(), serde_json::json!({ "clean": false, "info": info }));
    }

    /// Asserts that this is a media with these bytes.
    #[track_caller]
    pub fn is_media(&self, bytes: &[u8]) {
        assert_eq!(self.status, 200, "{:?}", String::from_utf8_lossy(&self.body));
        assert!(self.body == bytes, "{} bytes that are not the {}", self.body.len(), bytes.len());
    }
}

/// These tests speak http only; the crate wants a provider all the same.
fn tls() -> rustls::ClientConfig {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's own versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

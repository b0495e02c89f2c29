//! Mock homeserver on loopback. Behaves like Synapse with authenticated media by default, and records
//! the requests that it receives.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// Token that the homeserver accepts.
pub const TOKEN: &str = "good-token";

/// Server name in the MXC URIs of its media.
pub const NAME: &str = "hs.example";

/// Running homeserver; stops when dropped.
#[derive(Debug)]
pub struct MockHomeserver {
    pub address: SocketAddr,
    state: Arc<HomeserverState>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct HomeserverState {
    media: Mutex<HashMap<String, MockMedia>>,
    tokens: Mutex<Vec<String>>,
    requests: watch::Sender<Vec<RecordedRequest>>,
}

/// Request that the homeserver received.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    pub method: Method,
    /// Path and query.
    pub uri: String,
    pub headers: HeaderMap,
}

/// Response to requests for one media ID.
#[derive(Clone, Debug)]
pub struct MockMedia {
    status: StatusCode,
    headers: HeaderMap,
    body: MockBody,
    gate: Option<Gate>,
    without_token: bool,
    before_authentication: bool,
}

/// Body of a response.
#[derive(Clone, Debug)]
enum MockBody {
    Complete(Bytes),
    /// Declares a length, sends these bytes, then closes the connection.
    Truncated(u64, Bytes),
    /// Sends these bytes, then nothing more, and keeps the connection open.
    Stalling(Bytes),
    /// Sends without a declared length: the chunk, the number of chunks, and the interval.
    Dripping(Bytes, usize, Duration),
    /// Sends without a declared length: the first part at once, the rest after the gate has been opened.
    Gated(Bytes, Bytes, Gate),
}

/// Delays responses until it is opened.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl MockHomeserver {
    /// Starts a homeserver on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("local address");
        let state = Arc::new(HomeserverState {
            media: Mutex::default(),
            tokens: Mutex::new(vec![TOKEN.to_owned()]),
            requests: watch::Sender::default(),
        });
        let router = Router::new().fallback(respond).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serve");
        });
        Self { address, state, task }
    }

    /// Returns the base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds or replaces media. Returns the name as `server/id`.
    pub fn add_media(&self, id: &str, media: MockMedia) -> String {
        self.state.media.lock().unwrap().insert(id.to_owned(), media);
        format!("{NAME}/{id}")
    }

    /// Adds or replaces media with these bytes and Content-Type `image/png`. Returns the name as `server/id`.
    pub fn add_bytes(&self, id: &str, bytes: impl Into<Bytes>) -> String {
        self.add_media(id, MockMedia::new("image/png", bytes))
    }

    /// Removes media, like deletion or quarantine.
    pub fn remove_media(&self, id: &str) {
        self.state.media.lock().unwrap().remove(id);
    }

    /// Accepts an additional token.
    pub fn add_token(&self, token: &str) {
        self.state.tokens.lock().unwrap().push(token.to_owned());
    }

    /// Stops accepting a token, like a logout.
    pub fn revoke_token(&self, token: &str) {
        self.state.tokens.lock().unwrap().retain(|valid| valid != token);
    }

    /// Returns all requests received so far.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.state.requests.borrow().clone()
    }

    /// Number of downloads: requests without `If-None-Match`. Requests with it are authorisation checks.
    pub fn download_count(&self) -> usize {
        let requests = self.requests();
        let is_download =
            |request: &&RecordedRequest| !request.headers.contains_key(header::IF_NONE_MATCH);
        requests.iter().filter(is_download).count()
    }

    /// Waits until at least `count` requests have arrived.
    pub async fn wait_for_requests(&self, count: usize) {
        let mut requests = self.state.requests.subscribe();
        let arrived = requests.wait_for(|requests| requests.len() >= count);
        let arrived = tokio::time::timeout(super::TEST_TIMEOUT, arrived).await;
        arrived.expect("timed out waiting for requests").expect("homeserver is running");
    }
}

impl Drop for MockHomeserver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MockMedia {
    /// Creates media with the response headers that Synapse sends.
    pub fn new(content_type: &str, body: impl Into<Bytes>) -> Self {
        let media = Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: MockBody::Complete(body.into()),
            gate: None,
            without_token: false,
            before_authentication: false,
        };
        media
            .with_header("content-type", content_type)
            .with_header("etag", "1")
            .with_header("set-cookie", "from=upstream")
            .with_header("access-control-allow-origin", "https://upstream.example")
    }

    /// Creates an error response in Synapse's format. With an empty `errcode`, the body is an HTML page.
    pub fn error(status: u16, errcode: &str) -> Self {
        let body = match errcode {
            "" => "<html>an error page</html>".to_owned(),
            errcode => json!({ "errcode": errcode, "error": "no" }).to_string(),
        };
        let media = Self::new("application/json", body).without_header("etag");
        Self { status: StatusCode::from_u16(status).unwrap(), ..media }
    }

    /// Sets a header, replacing headers of the same name.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// Adds a header and keeps headers of the same name.
    pub fn with_extra_header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// Removes a header.
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Sets the status.
    pub fn with_status(self, status: u16) -> Self {
        Self { status: StatusCode::from_u16(status).unwrap(), ..self }
    }

    /// Responds only after the gate has been opened.
    pub fn gated_by(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    /// Also serves this media on the legacy routes, without authentication.
    pub fn served_without_token(self) -> Self {
        Self { without_token: true, ..self }
    }

    /// Serves this media on all routes before the token is examined, like a login page in front of the homeserver.
    pub fn served_before_authentication(self) -> Self {
        Self { before_authentication: true, ..self }
    }

    /// Declares `length` bytes, sends `sent` and closes the connection.
    pub fn truncated(self, length: u64, sent: impl Into<Bytes>) -> Self {
        Self { body: MockBody::Truncated(length, sent.into()), ..self }
    }

    /// Sends `sent` and then nothing more, without closing the connection.
    pub fn stalling_after(self, sent: impl Into<Bytes>) -> Self {
        Self { body: MockBody::Stalling(sent.into()), ..self }
    }

    /// Sends `chunk` `count` times at this interval, without a declared length.
    pub fn dripping(self, chunk: impl Into<Bytes>, count: usize, interval: Duration) -> Self {
        Self { body: MockBody::Dripping(chunk.into(), count, interval), ..self }
    }

    /// Sends `first` at once and `rest` after the gate has been opened, without a declared length.
    pub fn gated_after(self, first: impl Into<Bytes>, rest: impl Into<Bytes>, gate: &Gate) -> Self {
        Self { body: MockBody::Gated(first.into(), rest.into(), gate.clone()), ..self }
    }

    fn into_response(self) -> Response {
        let mut headers = self.headers;
        let body = match self.body {
            MockBody::Complete(bytes) => Body::from(bytes),
            MockBody::Truncated(length, sent) => {
                headers.insert(header::CONTENT_LENGTH, length.into());
                let error = Err(std::io::Error::other("truncated"));
                Body::from_stream(stream::iter([Ok(sent), error]))
            }
            MockBody::Stalling(sent) => {
                let sent = stream::iter([Ok::<_, std::io::Error>(sent)]);
                Body::from_stream(sent.chain(stream::pending()))
            }
            MockBody::Dripping(chunk, count, interval) => {
                Body::from_stream(stream::iter(0..count).then(move |_| {
                    let chunk = chunk.clone();
                    async move {
                        tokio::time::sleep(interval).await;
                        Ok::<_, std::io::Error>(chunk)
                    }
                }))
            }
            MockBody::Gated(first, rest, gate) => {
                let rest = stream::once(async move {
                    gate.pass().await;
                    Ok::<_, std::io::Error>(rest)
                });
                Body::from_stream(stream::iter([Ok(first)]).chain(rest))
            }
        };
        (self.status, headers, body).into_response()
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// Releases all current and future responses.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

async fn respond(State(state): State<Arc<HomeserverState>>, request: Request) -> Response {
    let received = RecordedRequest {
        method: request.method().clone(),
        uri: request.uri().to_string(),
        headers: request.headers().clone(),
    };
    state.requests.send_modify(|all| all.push(received.clone()));
    let path = request.uri().path();
    let id = path.rsplit('/').next().unwrap_or_default();
    let media = state.media.lock().unwrap().get(id).cloned();
    if let Some(media) = media.clone().filter(|media| media.before_authentication) {
        if let Some(gate) = &media.gate {
            gate.pass().await;
        }
        return media.into_response();
    }
    let authenticated = path.starts_with("/_matrix/client/v1/media/");
    let token = received
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if authenticated {
        match token {
            None => return MockMedia::error(401, "M_MISSING_TOKEN").into_response(),
            Some(token) if !state.tokens.lock().unwrap().iter().any(|valid| valid == token) => {
                return MockMedia::error(401, "M_UNKNOWN_TOKEN").into_response();
            }
            Some(_) => {}
        }
    } else if !path.starts_with("/_matrix/media/") {
        return MockMedia::error(404, "M_UNRECOGNIZED").into_response();
    }
    let Some(media) = media.filter(|media| authenticated || media.without_token) else {
        return MockMedia::error(404, "M_NOT_FOUND").into_response();
    };
    if let Some(gate) = &media.gate {
        gate.pass().await;
    }
    let condition = received.headers.get(header::IF_NONE_MATCH);
    if media.status == 200 && condition.is_some() && condition == media.headers.get(header::ETAG) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    media.into_response()
}

//! A homeserver on loopback that behaves like Synapse with authenticated media, unless a test says
//! otherwise, and remembers what it was asked.

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

/// The token that it knows.
pub const TOKEN: &str = "good-token";

/// The name that its media bear.
pub const NAME: &str = "hs.example";

/// One homeserver; it stops when dropped.
#[derive(Debug)]
pub struct Homeserver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    media: Mutex<HashMap<String, Media>>,
    tokens: Mutex<Vec<String>>,
    asked: watch::Sender<Vec<Asked>>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    /// Path and query.
    pub uri: String,
    pub headers: HeaderMap,
}

/// What it answers for one media.
#[derive(Clone, Debug)]
pub struct Media {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
    gate: Option<Gate>,
    open: bool,
}

/// The body of an answer.
#[derive(Clone, Debug)]
enum Content {
    Whole(Bytes),
    /// Announces a length, sends these bytes, then closes the connection.
    CutShort(u64, Bytes),
    /// Sends these bytes, and then nothing more, for ever.
    Stalled(Bytes),
    /// Without a length: this piece, so many times, at this interval.
    Dripping(Bytes, usize, Duration),
}

/// Holds answers back until it is opened.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Homeserver {
    /// One that listens.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            media: Mutex::default(),
            tokens: Mutex::new(vec![TOKEN.to_owned()]),
            asked: watch::Sender::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving");
        });
        Self { address, shared, task }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Has a media from now on; gives its name as `server/id`.
    pub fn has(&self, id: &str, media: Media) -> String {
        self.shared.media.lock().unwrap().insert(id.to_owned(), media);
        format!("{NAME}/{id}")
    }

    /// Has a media with these bytes, a PNG by its Content-Type.
    pub fn has_bytes(&self, id: &str, bytes: impl Into<Bytes>) -> String {
        self.has(id, Media::new("image/png", bytes))
    }

    /// Deletes, or quarantines, a media.
    pub fn forgets(&self, id: &str) {
        self.shared.media.lock().unwrap().remove(id);
    }

    /// Knows another token.
    pub fn knows(&self, token: &str) {
        self.shared.tokens.lock().unwrap().push(token.to_owned());
    }

    /// A token is logged out.
    pub fn logs_out(&self, token: &str) {
        self.shared.tokens.lock().unwrap().retain(|known| known != token);
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.borrow().clone()
    }

    /// How many requests were downloads rather than questions: without `If-None-Match`.
    pub fn downloads(&self) -> usize {
        let asked = self.asked();
        asked.iter().filter(|it| !it.headers.contains_key(header::IF_NONE_MATCH)).count()
    }

    /// Waits until so many requests have come.
    pub async fn was_asked(&self, times: usize) {
        let mut asked = self.shared.asked.subscribe();
        let came = asked.wait_for(|asked| asked.len() >= times);
        tokio::time::timeout(super::PATIENCE, came).await.expect("a request").expect("alive");
    }
}

impl Drop for Homeserver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Media {
    /// A media as Synapse gives it.
    pub fn new(content_type: &str, body: impl Into<Bytes>) -> Self {
        let media = Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            content: Content::Whole(body.into()),
            gate: None,
            open: false,
        };
        media
            .with("content-type", content_type)
            .with("etag", "1")
            .with("set-cookie", "from=upstream")
            .with("access-control-allow-origin", "https://upstream.example")
    }

    /// An error as Synapse gives it; an empty errcode leaves the body without one.
    pub fn error(status: u16, errcode: &str) -> Self {
        let body = match errcode {
            "" => "<html>an error page</html>".to_owned(),
            errcode => json!({ "errcode": errcode, "error": "no" }).to_string(),
        };
        let media = Self::new("application/json", body).without("etag");
        Self { status: StatusCode::from_u16(status).unwrap(), ..media }
    }

    /// With this header, in place of one of that name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// With this header beside others of that name.
    pub fn with_another(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// Without this header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Another status.
    pub fn status(self, status: u16) -> Self {
        Self { status: StatusCode::from_u16(status).unwrap(), ..self }
    }

    /// Answers once the gate is open.
    pub fn behind(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    /// Given by the old routes too, to everybody.
    pub fn open(self) -> Self {
        Self { open: true, ..self }
    }

    /// Announces `length` bytes, sends these and breaks off.
    pub fn cut_short(self, length: u64, sent: impl Into<Bytes>) -> Self {
        Self { content: Content::CutShort(length, sent.into()), ..self }
    }

    /// Sends these bytes and then nothing more.
    pub fn stalled(self, sent: impl Into<Bytes>) -> Self {
        Self { content: Content::Stalled(sent.into()), ..self }
    }

    /// Sends, without a length, this piece again and again.
    pub fn dripping(self, piece: impl Into<Bytes>, pieces: usize, interval: Duration) -> Self {
        Self { content: Content::Dripping(piece.into(), pieces, interval), ..self }
    }

    fn into_response(self) -> Response {
        let mut headers = self.headers;
        let body = match self.content {
            Content::Whole(bytes) => Body::from(bytes),
            Content::CutShort(length, sent) => {
                headers.insert(header::CONTENT_LENGTH, length.into());
                let broken = Err(std::io::Error::other("broken off"));
                Body::from_stream(stream::iter([Ok(sent), broken]))
            }
            Content::Stalled(sent) => {
                let sent = stream::iter([Ok::<_, std::io::Error>(sent)]);
                Body::from_stream(sent.chain(stream::pending()))
            }
            Content::Dripping(piece, pieces, interval) => {
                Body::from_stream(stream::iter(0..pieces).then(move |_| {
                    let piece = piece.clone();
                    async move {
                        tokio::time::sleep(interval).await;
                        Ok::<_, std::io::Error>(piece)
                    }
                }))
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
    /// Lets everything through, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let asked = Asked {
        method: request.method().clone(),
        uri: request.uri().to_string(),
        headers: request.headers().clone(),
    };
    shared.asked.send_modify(|all| all.push(asked.clone()));
    let path = request.uri().path();
    let authenticated = path.starts_with("/_matrix/client/v1/media/");
    let token = asked
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if authenticated {
        match token {
            None => return Media::error(401, "M_MISSING_TOKEN").into_response(),
            Some(token) if !shared.tokens.lock().unwrap().iter().any(|known| known == token) => {
                return Media::error(401, "M_UNKNOWN_TOKEN").into_response();
            }
            Some(_) => {}
        }
    } else if !path.starts_with("/_matrix/media/") {
        return Media::error(404, "M_UNRECOGNIZED").into_response();
    }
    let id = path.rsplit('/').next().unwrap_or_default();
    let media = shared.media.lock().unwrap().get(id).cloned();
    let Some(media) = media.filter(|media| authenticated || media.open) else {
        return Media::error(404, "M_NOT_FOUND").into_response();
    };
    if let Some(gate) = &media.gate {
        gate.pass().await;
    }
    let condition = asked.headers.get(header::IF_NONE_MATCH);
    if media.status == 200 && condition.is_some() && condition == media.headers.get(header::ETAG) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    media.into_response()
}

//! Server of the other sides of incidents: the admin API of Synapse, a room, and a webhook. Like a homeserver, it stores one
//! message for each transaction.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::harness::TEST_TIMEOUT;

/// What a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum ServerStep {
    Quarantine,
    Release,
    Check,
    Webhook,
    Room,
}

/// A response in place of the ordinary one.
#[derive(Clone, Debug)]
pub(crate) enum StepReply {
    Status(u16),
    RateLimit,
    Redirect(String),
    /// Larger than the service reads.
    Huge,
    /// None until the connection ends. The request has no effect.
    Never,
}

#[derive(Clone, Debug)]
pub(crate) struct ReceivedStep {
    pub(crate) step: ServerStep,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
struct IncidentServerState {
    received: watch::Sender<Vec<ReceivedStep>>,
    replies: Mutex<HashMap<ServerStep, VecDeque<StepReply>>>,
    quarantined: Mutex<BTreeSet<String>>,
    missing: Mutex<BTreeSet<String>>,
    messages: Mutex<BTreeMap<String, Value>>,
}

/// Stops when dropped.
pub(crate) struct IncidentServer {
    pub(crate) address: SocketAddr,
    state: Arc<IncidentServerState>,
    task: JoinHandle<()>,
}

impl Drop for IncidentServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl IncidentServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<IncidentServerState>::default();
        let router = Router::new().fallback(respond).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends these responses to the next requests of a step.
    pub(crate) fn reply(&self, step: ServerStep, replies: impl IntoIterator<Item = StepReply>) {
        self.state.replies.lock().unwrap().entry(step).or_default().extend(replies);
    }

    /// Has the homeserver lack media.
    pub(crate) fn remove(&self, media: &str) {
        self.state.missing.lock().unwrap().insert(media.to_owned());
    }

    pub(crate) fn quarantined(&self) -> Vec<String> {
        self.state.quarantined.lock().unwrap().iter().cloned().collect()
    }

    /// Returns the messages of the room.
    pub(crate) fn messages(&self) -> Vec<Value> {
        self.state.messages.lock().unwrap().values().cloned().collect()
    }

    pub(crate) fn received(&self, step: ServerStep) -> Vec<ReceivedStep> {
        let all = self.state.received.borrow();
        all.iter().filter(|received| received.step == step).cloned().collect()
    }

    /// Waits until so many requests of a step have arrived.
    pub(crate) async fn wait_for(&self, step: ServerStep, count: usize) {
        let mut received = self.state.received.subscribe();
        let arrived = received
            .wait_for(|all| all.iter().filter(|received| received.step == step).count() >= count);
        let arrived = tokio::time::timeout(TEST_TIMEOUT, arrived).await;
        assert!(arrived.is_ok(), "no {count} requests of {step:?}");
    }
}

async fn respond(State(state): State<Arc<IncidentServerState>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap().to_vec();
    let path = parts.uri.path().to_owned();
    let step = match (&parts.method, &*path) {
        (&Method::POST, "/hook") => ServerStep::Webhook,
        (&Method::PUT, path) if path.contains("/send/m.room.message/") => ServerStep::Room,
        (&Method::POST, path) if path.starts_with("/_synapse/admin/v1/media/quarantine/") => {
            ServerStep::Quarantine
        }
        (&Method::POST, path) if path.starts_with("/_synapse/admin/v1/media/unquarantine/") => {
            ServerStep::Release
        }
        (&Method::GET, path) if path.starts_with("/_synapse/admin/v1/media/") => ServerStep::Check,
        _ => return StatusCode::IM_A_TEAPOT.into_response(),
    };
    let received = ReceivedStep { step, path: path.clone(), headers: parts.headers, body };
    let reply = state.replies.lock().unwrap().get_mut(&step).and_then(VecDeque::pop_front);
    state.received.send_modify(|all| all.push(received.clone()));
    match reply {
        None => {}
        Some(StepReply::Status(status)) => {
            return StatusCode::from_u16(status).unwrap().into_response();
        }
        Some(StepReply::RateLimit) => {
            let error = json!({ "errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 1 });
            return (StatusCode::TOO_MANY_REQUESTS, error.to_string()).into_response();
        }
        Some(StepReply::Redirect(target)) => {
            return (StatusCode::TEMPORARY_REDIRECT, [("location", target)]).into_response();
        }
        Some(StepReply::Huge) => return Body::from(vec![b'x'; 1 << 20]).into_response(),
        Some(StepReply::Never) => std::future::pending().await,
    }
    state.respond(step, &received)
}

impl IncidentServerState {
    fn respond(&self, step: ServerStep, received: &ReceivedStep) -> Response {
        let last = |count: usize| {
            let parts: Vec<_> = received.path.rsplit('/').take(count).collect();
            parts.into_iter().rev().collect::<Vec<_>>().join("/")
        };
        match step {
            ServerStep::Webhook => StatusCode::NO_CONTENT.into_response(),
            ServerStep::Room => {
                let content = serde_json::from_slice(&received.body).unwrap();
                self.messages.lock().unwrap().entry(last(1)).or_insert(content);
                json!({ "event_id": "$event" }).to_string().into_response()
            }
            ServerStep::Quarantine => {
                let media = last(2);
                // As Synapse, which accepts media that it does not have.
                if !self.missing.lock().unwrap().contains(&media) {
                    self.quarantined.lock().unwrap().insert(media);
                }
                "{}".into_response()
            }
            ServerStep::Release => {
                self.quarantined.lock().unwrap().remove(&last(2));
                "{}".into_response()
            }
            ServerStep::Check => {
                let media = last(2);
                if self.missing.lock().unwrap().contains(&media) {
                    let error = json!({ "errcode": "M_NOT_FOUND" }).to_string();
                    return (StatusCode::NOT_FOUND, error).into_response();
                }
                let is_quarantined = self.quarantined.lock().unwrap().contains(&media);
                let by = is_quarantined.then_some("@admin:example.org");
                json!({ "media_info": { "quarantined_by": by } }).to_string().into_response()
            }
        }
    }
}

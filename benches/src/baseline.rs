//! The least that an axum server can be: one route that answers a verdict's JSON, and one that answers a body out of
//! memory. In a process of its own, as the service is.

use axum::{Json, Router, body::Bytes, routing::get};
use serde::Serialize;
use tokio::net::TcpListener;

#[derive(Serialize)]
struct Verdict {
    clean: bool,
    info: &'static str,
}

/// `body`: bytes of the body.
pub(crate) async fn serve(port: u16, body: usize) {
    let verdict =
        || async { Json(Verdict { clean: true, info: "File clean at 2026-01-01T00:00:00Z" }) };
    let body = Bytes::from(vec![0x5a; body]);
    let router = Router::new()
        .route("/verdict", get(verdict))
        .route("/body", get(move || std::future::ready(body.clone())));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}

//! Minimal axum server as a baseline: one route returns a verdict's JSON, another a body from memory. Runs in a separate
//! process, like the service.

use axum::{Json, Router, body::Bytes, routing::get};
use serde::Serialize;
use tokio::net::TcpListener;

#[derive(Serialize)]
struct BaselineVerdict {
    clean: bool,
    info: &'static str,
}

/// Serves on `port`. `body_size`: size of the body from memory, bytes.
pub(crate) async fn serve(port: u16, body_size: usize) {
    let verdict = || async {
        Json(BaselineVerdict { clean: true, info: "File clean at 2026-01-01T00:00:00Z" })
    };
    let body = Bytes::from(vec![0x5a; body_size]);
    let router = Router::new()
        .route("/verdict", get(verdict))
        .route("/body", get(move || std::future::ready(body.clone())));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}

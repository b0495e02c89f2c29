//! The least that an axum server can be: one route that answers a verdict's JSON. In a process of its own, as the service is.

use axum::{Json, Router, routing::get};
use serde::Serialize;
use tokio::net::TcpListener;

#[derive(Serialize)]
struct Verdict {
    clean: bool,
    info: &'static str,
}

pub(crate) async fn serve(port: u16) {
    let verdict =
        || async { Json(Verdict { clean: true, info: "File clean at 2026-01-01T00:00:00Z" }) };
    let router = Router::new().route("/{*any}", get(verdict));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}

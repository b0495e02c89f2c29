//! A homeserver for trying the scanner. It has two files, `mxc://demo/clean` and `mxc://demo/infected` (the EICAR test
//! file), and accepts the access token `demo`.
//!
//! ```sh
//! cargo run --package mcs-testing --example homeserver [ADDRESS]    # default: 127.0.0.1:8008
//! ```

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

const TOKEN: &str = "Bearer demo";

const CLEAN: &str = "This file is clean.\n";

/// The EICAR test file in two pieces, because virus scanners would report this file otherwise.
const EICAR: [&str; 2] =
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8008".to_owned());
    let listener = TcpListener::bind(address).await?;
    eprintln!("demonstration homeserver on http://{}", listener.local_addr()?);
    axum::serve(listener, router()).await
}

/// Returns the routes for versions and for authenticated media (Matrix specification v1.11, client-server API, "Content repository").
pub(crate) fn router() -> Router {
    Router::new()
        .route("/_matrix/client/versions", get(versions))
        .route("/_matrix/client/v1/media/download/{server}/{media}", get(download))
}

/// Returns the versions of the specification (Matrix specification, client-server API, "API versions").
async fn versions() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], r#"{"versions":["v1.11"]}"#).into_response()
}

async fn download(Path(name): Path<(String, String)>, headers: HeaderMap) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|token| token != TOKEN) {
        return error(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "The access token is demo");
    }
    match (&*name.0, &*name.1) {
        ("demo", "clean") => file(CLEAN.to_owned()),
        ("demo", "infected") => file(EICAR.concat()),
        _ => error(StatusCode::NOT_FOUND, "M_NOT_FOUND", "Only demo/clean and demo/infected exist"),
    }
}

fn file(content: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain")], content).into_response()
}

/// Builds a standard error response (Matrix specification, client-server API, "Standard error response").
fn error(status: StatusCode, code: &str, text: &str) -> Response {
    let body = format!("{{\"errcode\":\"{code}\",\"error\":\"{text}\"}}");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

//! Homeserver of an attacker: media that is never uploaded, media that arrives slowly, and small files for other users.
//! Runs in a separate process, like the service.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Path,
    response::IntoResponse,
    routing::get,
};
use futures_util::stream;
use tokio::{net::TcpListener, time::sleep};

/// Interval and size of the pieces of slow media: 1.3 KB/s, just above the service's minimum rate.
const PIECE_INTERVAL: Duration = Duration::from_secs(1);
const PIECE: usize = 1300;

/// Serves on `port`. Accepts every token.
pub(crate) async fn serve(port: u16) {
    let route = "/_matrix/client/v1/media/download/{server}/{id}";
    let router = Router::new().route(route, get(media));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}

/// Responds with a body that depends on the beginning of the media ID.
async fn media(Path((_server, id)): Path<(String, String)>) -> impl IntoResponse {
    if id.starts_with("pending") {
        std::future::pending::<()>().await;
    }
    if id.starts_with("slow") {
        let pieces = stream::unfold((), |()| async {
            sleep(PIECE_INTERVAL).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(&[0x5a; PIECE])), ()))
        });
        return Body::from_stream(pieces);
    }
    Body::from(id)
}

//! Helpers for outbound requests: deadlines, small bodies and base URLs.

use std::{sync::Arc, time::Duration};

use reqwest::{Response, Url};
use tokio::time::{Instant, timeout_at};

/// Returns the time after `timeout`, at most `deadline`.
pub(super) fn within(timeout: Duration, deadline: Instant) -> Instant {
    // A timeout beyond the clock's range ends at the deadline.
    Instant::now().checked_add(timeout).map_or(deadline, |until| until.min(deadline))
}

/// Reads a body of at most `limit` bytes. Returns `None` if the body is larger, incomplete or not finished at `until`.
pub(super) async fn read_small(
    mut response: Response,
    limit: usize,
    until: Instant,
) -> Option<Vec<u8>> {
    let read = async {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            if body.len() + chunk.len() > limit {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        Some(body)
    };
    timeout_at(until, read).await.ok().flatten()
}

/// Returns the URL without query, fragment and trailing slash, shared so that clones are cheap.
pub(crate) fn base_url(url: &Url) -> Arc<Url> {
    let mut base = url.clone();
    base.set_query(None);
    base.set_fragment(None);
    if let Ok(mut path) = base.path_segments_mut() {
        path.pop_if_empty();
    }
    Arc::new(base)
}

/// Removes `user:password@` from a URL that another server sent.
pub(super) fn without_credentials(mut url: Url) -> Url {
    // Fails only for URLs without a host, which have no credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

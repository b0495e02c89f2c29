//! Test harness: the real program in its own directory, a scripted homeserver on loopback, and raw
//! sockets for requests that no client library sends.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::must_use_candidate,
    clippy::unused_self,
    clippy::missing_panics_doc,
    clippy::return_self_not_must_use,
    clippy::allow_attributes,
    reason = "test code: each test binary uses a part of it, and tests fail by panicking"
)]

pub mod attachment;
pub mod client;
pub mod homeserver;
pub mod raw;
pub mod scanner;

pub use attachment::Attachment;
pub use client::{TestClient, TestResponse};
pub use homeserver::{MockHomeserver, MockMedia};
pub use mcs_testing::{NetworkNamespace, RedisServer, report_skipped};
pub use raw::{AfterResponse, RawClient, RawServer};
pub use scanner::{ScannerBuilder, ScannerProcess};

use std::time::Duration;

/// Time after which a test considers an operation hung. Longer than any working operation takes, even on a busy machine.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the EICAR test string, assembled at run time so that no scanner finds it in this checkout.
pub fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat().into()
}

/// Returns a PNG of one pixel.
pub fn png() -> Vec<u8> {
    let parts: [&[u8]; 4] = [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89",
        b"\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0\x05\0\x01\xff",
        b"\x89\x99=\x1d",
        b"\0\0\0\0IEND\xaeB`\x82",
    ];
    parts.concat()
}

/// Returns pseudo-random bytes that match no file type. Deterministic for a seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            // xorshift64: fast, and incompressible.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[4]
        })
        .collect()
}

/// Polls until `condition` holds. Panics with `what` after [`TEST_TIMEOUT`].
///
/// For state that can only be observed by polling, such as processes and directories.
pub async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + TEST_TIMEOUT;
    while !condition() {
        assert!(std::time::Instant::now() < end, "timed out waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

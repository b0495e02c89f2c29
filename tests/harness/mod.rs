//! What tests need: the real program in a directory of its own, a homeserver on loopback that does
//! what a test says, and requests written by hand where a client would not send them.
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
    reason = "code for tests: each test binary uses a part of it, and a panic is how it fails"
)]

pub mod attachment;
pub mod client;
pub mod homeserver;
pub mod raw;
pub mod scanner;

pub use attachment::Attachment;
pub use client::{Client, Reply};
pub use homeserver::{Homeserver, Media};
pub use raw::{Caller, RawServer, Then};
pub use scanner::{Builder, Scanner};

use std::time::Duration;

/// Longer than anything takes that works, on a busy machine. What hangs fails after it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The EICAR test string, put together here so that no scanner finds it in this checkout.
pub fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat().into()
}

/// A PNG of one pixel.
pub fn png() -> Vec<u8> {
    let parts: [&[u8]; 4] = [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89",
        b"\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0\x05\0\x01\xff",
        b"\x89\x99=\x1d",
        b"\0\0\0\0IEND\xaeB`\x82",
    ];
    parts.concat()
}

/// Bytes that look like nothing and are the same at each run; another seed gives other bytes.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            // xorshift64: quick, and a compressor makes nothing of it.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[4]
        })
        .collect()
}

/// Waits until `condition` holds, and fails with `what` if it never does. For what can only be looked
/// at from outside (a process, a directory); what the test takes part in is awaited.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < end, "it never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Says that a test is skipped, and why; `./test` counts these.
pub fn skipped(test: &str, why: &str) {
    use std::io::Write as _;
    eprintln!("SKIPPED {test}: {why}");
    if let Some(list) = std::env::var_os("SKIPPED_TESTS") {
        let mut list = std::fs::File::options().append(true).open(list).expect("the list");
        // In one write(2): others write at the same time.
        list.write_all(format!("{test}: {why}\n").as_bytes()).expect("a line");
    }
}

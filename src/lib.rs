//! A web service that stands between Matrix clients and a content repository: it fetches a media,
//! opens it if it is end-to-end encrypted, runs the operator's scan script on the plaintext in a
//! restricted process, and returns the media only if that script exits with 0.
//!
//! # The map
//!
//! | module | duty | may import |
//! |---|---|---|
//! | [`app`] | builds everything once, binds, serves, drains; by another configuration at each reload | all below |
//! | [`chain`] | an error and its causes in one line | nothing of ours |
//! | [`config`] | the file as written, checked once, in final types | the settings types of all below |
//! | [`http`] | connections, routes, request parsing, answers, the table of errors | `scan`'s vocabulary, `media`'s types, `keys`, `metrics`, `chain` |
//! | [`keys`] | the server's request key, and opening what was encrypted for it | nothing of ours |
//! | [`scan`] | one request from authorisation to verdict: cache, queue, workers, file type, engines, canary; a script on trial | `media`, the sandbox, `metrics`, `audit`, `chain` |
//! | [`service_manager`], `supervision` | what systemd passes, and what it is told | `scan`'s vocabulary |
//! | [`metrics`] | what is counted: names, meanings, labels | nothing of ours |
//! | [`operations`] | the operator's listener: metrics, health | `http`'s listener and server, `metrics`, `scan`'s state |
//! | [`audit`] | on request a line for each media that was judged | `media`'s types, `metrics` |
//! | [`logging`] | the log | `config` |
//! | [`ownership`] | who can replace a file: owners and modes on the way to it | nothing of ours |
//! | [`media`] | media ids, homeservers, authorisation, download, decryption, spool | `metrics`, `chain` |
//! | [`migrate`] | an earlier scanner's YAML as our TOML | `config`'s way of writing and judging |
//! | `mcs-rules` | a crate of its own: YARA rules on one file, and the process that evaluates them | the sandbox, for mapping a file |
//! | `mcs-sandbox` | a crate of its own: one program on one file under restriction | nothing of ours |
//!
//! # The walk of one request (`POST …/download_encrypted`)
//!
//! 1. [`http::routes`] finds the route.
//! 2. [`http::request`] bounds the body and turns JSON into a [`scan::ScanRequest`]; from here on everything is parsed.
//! 3. [`http::handlers`] calls [`scan::Scanner::scan`].
//! 4. [`scan`] authorises the requester; a known verdict is answered from [`scan::cache`].
//! 5. [`scan::flight`] joins a job for the same thing, or submits one.
//! 6. [`scan::queue`] takes the [`scan::queue::ScanJob`], or says that it is full.
//! 7. [`scan::worker`] takes it from top to bottom: the sandbox prepares the job's directory,
//!    [`media::download`] streams, [`media::intake`] hashes and decrypts on the same pass,
//!    [`scan::filetype`] names the type, [`scan::engines`] are asked, [`scan::script`] among them.
//! 8. The worker replies; the cache remembers; the handler streams the bytes that were hashed.
//! 9. [`http::error`], only on failure: a [`scan::ScanError`] becomes status, reason and info.
//!
//! # Glossary
//!
//! *media*: what an mxc URI names, or a thumbnail of it. *body*: the bytes served for it (for an
//! encrypted media the ciphertext). *plaintext*: the bytes that are scanned. *verdict*: what the
//! engines said of a plaintext. *engine*: who has a word on it: the script, clamd, an ICAP server. *job*: one media on its way through a worker. *flight*: a job and all
//! who wait for it. *requester*: the client's token and forwarded headers. *spool*: the disk that
//! jobs and large bodies use.
#![forbid(unsafe_code)]

pub mod app;
pub mod audit;
pub mod chain;
pub mod config;
pub mod http;
pub mod identity;
pub mod keys;
pub mod logging;
pub mod media;
pub mod metrics;
pub mod migrate;
pub mod operations;
pub mod ownership;
pub mod scan;
pub mod service_manager;
mod supervision;
pub mod terminal;

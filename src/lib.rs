//! Matrix Content Scanner: a web service between Matrix clients and a content repository. For each request it downloads
//! the media, decrypts it if necessary, scans the plaintext, and returns the media only if it is clean.
//!
//! # Modules
//!
//! Each module imports only modules that its row lists, in addition to other crates.
//!
//! | module | purpose | imports |
//! |---|---|---|
//! | [`cli`] | command line: arguments, subcommands, output, hints, signals | all modules below |
//! | [`app`] | builds everything once, serves, reloads, shuts down; limits of the process; protocol with the service manager | all modules below |
//! | [`logging`] | log as text or JSON | `config`, `text` |
//! | [`http`] | connections, routes, parsing of requests, responses, the table of errors | `config`, `scan`'s requests, responses and errors, `media`'s types, `keys`, `metrics`, `cause`, `exhaustion`, `ownership`, `lenient_base64`, `chain` |
//! | [`telemetry`] | listener for operators: metrics, health | `config`, `http`'s listener and server, `scan`'s state, `metrics`, `media`'s run directory |
//! | `job_records` | records finished jobs in the metrics and the audit log | `scan`'s reports, `media`'s types, `audit`, `metrics` |
//! | [`audit`] | optional audit log: one line for each scanned file | `config`, `media`'s types, `metrics`, `ownership`, `identity`, `chain` |
//! | [`metrics`] | counters and histograms | `scan`'s timings, `media`'s counters, `cause` |
//! | [`scan`] | one request from authorisation to verdict: cache, queue, workers, engines, canary | `config`, `media`, `cause`, `tenancy`, `single_flight`, `exhaustion`, `identity`, `text`, `chain` |
//! | [`media`] | media ids, homeservers, authorisation, download, decryption, spool, the directory of the running server | `config`, `cause`, `tenancy`, `single_flight`, `ownership`, `exhaustion`, `chain` |
//! | [`keys`] | the server's request key, and decryption with it | `config`, `ownership`, `identity`, `lenient_base64` |
//! | [`config`] | defaults, configuration file and environment; the validated settings of all modules | `ownership`, `identity` |
//! | `tenancy` | fair sharing of the queue, the workers and the spool between tenants | `sync` |
//! | `single_flight` | runs one computation at a time for each key | `sync` |
//! | [`ownership`] | checks whether other users can replace a file | none |
//! | [`identity`] | name of this process's user, for error messages | none |
//! | [`cause`] | causes of requests that end without a verdict | none |
//! | `exhaustion` | detects errors that mean a lack of descriptors, processes or memory | none |
//! | `lenient_base64` | decodes base64 as clients write it | none |
//! | [`text`] | sanitizes untrusted text | none |
//! | [`chain`] | an error and its causes in one line | none |
//! | `sync` | the mutex, replaced in model tests | none |
//!
//! The other crates of the workspace:
//!
//! | crate | purpose |
//! |---|---|
//! | `mcs-sandbox` | runs one program on one file in a sandbox; all unsafe code of the workspace |
//! | `mcs-evaluator` | evaluates YARA rules on one file, in a process of its own |
//! | `mcs-filetype` | detects file types |
//! | `mcs-icap` | ICAP client |
//! | `mcs-migrate` | converts the configurations of the two earlier scanners to TOML |
//! | `mcs-testing` | parts of the tests of several crates |
//!
//! # One request (`POST …/download_encrypted`)
//!
//! 1. [`http::routes`] selects the handler.
//! 2. [`http::request`] reads the bounded body and parses it into a [`scan::ScanRequest`]. All later code uses parsed
//!    types.
//! 3. [`http::handlers`] calls [`scan::Scanner::scan`].
//! 4. [`scan::scanner`] looks the media up in [`scan::cache`]. A cached response is returned after the homeserver has
//!    authorised the requester.
//! 5. [`scan::in_flight`] joins a job in progress for the same media, or starts one.
//! 6. [`scan::queue`] accepts the [`scan::job::ScanJob`], or rejects it when it is full.
//! 7. [`scan::worker`] takes the job, and `scan::context` processes it: it creates a working directory,
//!    [`media::download`] receives the body, [`media::ingest`] hashes and decrypts it in the same pass,
//!    [`mcs_filetype`] detects the type of the plaintext, and [`scan::engines`] scan it.
//! 8. The worker stores the result in the cache and replies. The handler sends the body that was hashed in step 7.
//! 9. On failure, [`http::error`] maps the [`scan::ScanError`] to a status, a reason and an info text.
//!
//! # Glossary
//!
//! - *media*: the file that an mxc URI names, or a thumbnail of it.
//! - *body*: the bytes that the homeserver serves for it; for encrypted media the ciphertext.
//! - *plaintext*: the bytes that are scanned.
//! - *content*: the plaintext, identified by its SHA-256.
//! - *engine*: a scanner: the script, the rules, clamd or an ICAP server.
//! - *outcome*: what one engine determined about a content, or all of them, before the operator's policies.
//! - *verdict*: the combined result of the engines on a content: clean, not clean, or type forbidden.
//! - *job*: download and scan of one media file by one worker. Concurrent requests for the same media share a job.
//! - *initiator*: the request that started a job, and whose token the download uses. All other requests of the job are
//!   waiters, which the homeserver authorises separately.
//! - *requester*: access token and forwarded headers of a request.
//! - *tenant*: a server name or an access token, for fair sharing.
//! - *spool*: the disk space for jobs and large bodies.
#![forbid(unsafe_code)]

pub mod app;
pub mod audit;
pub mod cause;
pub mod chain;
pub mod cli;
pub mod config;
mod exhaustion;
pub mod http;
pub mod identity;
mod job_records;
pub mod keys;
mod lenient_base64;
pub mod logging;
pub mod media;
#[cfg(test)]
mod memory_bounds;
pub mod metrics;
pub mod ownership;
pub mod scan;
mod single_flight;
mod sync;
pub mod telemetry;
mod tenancy;
pub mod text;

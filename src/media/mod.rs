//! Downloads media from homeservers. Does not depend on verdicts, engines or the HTTP server. Matrix specification
//! v1.11 and later, client-server API, sections "Content repository" and "Sending encrypted attachments".

mod address;
mod answer;
pub mod authorise;
mod body;
mod counters;
mod decode;
pub mod decrypt;
mod digest;
pub(crate) mod discovery;
pub(crate) mod disposition;
pub mod download;
mod error;
mod expiring_cache;
#[cfg(test)]
mod fake;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod head;
pub mod homeserver;
mod homeserver_check;
mod homeserver_status;
mod http_util;
pub mod id;
pub mod ingest;
mod outbound;
pub(crate) mod rate;
mod request;
mod resolver;
mod retry_after;
mod routes;
pub mod run_directory;
pub mod service_client;
mod setup_error;
pub mod spool;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod token_users;

pub use crate::config::sections::download::Settings;
pub use authorise::Authoriser;
pub use body::Body;
pub use counters::FetchCounters;
pub(crate) use counters::status_label;
pub(crate) use digest::{hex, parse_hex};
pub use download::Download;
pub use error::FetchError;
pub use head::Head;
pub use homeserver::{Homeservers, MAX_HEADER_VALUE};
pub use homeserver_check::{
    HomeserverCheck, HomeserverFinding, certificate_end, check_homeservers, homeserver_mistakes,
};
pub use homeserver_status::{CHECK_INTERVAL, HomeserverStatus, MediaResponses};
pub(crate) use http_util::base_url;
pub(crate) use id::split_port;
pub use id::{InvalidMediaId, MediaId};
pub use request::{
    MediaRequest, Origin, RequestSender, Requester, Thumbnail, ThumbnailMethod, Variant,
};
pub use resolver::ResolutionError;
pub use setup_error::OutboundSetupError;
pub(crate) use token_users::is_user_id;
pub use token_users::{TokenUsers, UserQuestion};

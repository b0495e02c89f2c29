//! Options of a service, RFC 3507 section 4.10.2.

use crate::{error::IcapError, message::IcapHead};

/// Maximum length of a preview, bytes. If a server requests a larger preview, this size is used.
const MAX_PREVIEW: u64 = 64 * 1024;

/// Headers that describe which files a service scans, and how. Excluded are those that may differ in each response,
/// such as `Date` and `Max-Connections`.
const BEHAVIOUR: [&str; 9] = [
    "methods",
    "service",
    "service-id",
    "opt-body-type",
    "allow",
    "preview",
    "transfer-preview",
    "transfer-ignore",
    "transfer-complete",
];

/// Options of a service, from its response to OPTIONS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceOptions {
    /// Length of the requested preview, bytes; `None` if the server does not request a preview.
    pub preview: Option<u64>,
    /// Version of the server.
    pub istag: String,
    /// Which files the service scans, and how. Equal texts mean equal behaviour.
    pub behaviour: String,
}

impl ServiceOptions {
    /// Returns the options in a response.
    ///
    /// # Errors
    /// No `ISTag`, or a service without this method.
    pub(crate) fn parse(head: &IcapHead, method: &str) -> Result<Self, IcapError> {
        let methods: Vec<_> = head.all("methods").collect();
        if !methods.is_empty() && !head.lists("methods", method) {
            let methods = methods.join(", ");
            return Err(IcapError::Reported(format!("supported methods: {methods}")));
        }
        let preview = head.first("preview").and_then(|preview| preview.parse::<u64>().ok());
        let no_istag = || IcapError::bad_response("OPTIONS response without an ISTag");
        let istag = head.first("istag").ok_or_else(no_istag)?;
        let values = |name| head.all(name).map(move |value| format!("{name}: {value}"));
        let behaviour = BEHAVIOUR.into_iter().flat_map(values).collect::<Vec<_>>().join("; ");
        Ok(Self { preview: preview.map(|preview| preview.min(MAX_PREVIEW)), istag, behaviour })
    }
}

//! What operators see of the cache and of the verdict store.

use std::{sync::Arc, time::SystemTime};

use mcs_filetype::MediaType;
use mcs_store::RecordKey;
use reqwest::Url;

use super::entry::CachedVerdict;
use crate::{
    media::{MediaId, Origin, Variant},
    scan::{
        engines::{DecodedOutcome, EngineSummary},
        request::ScanRequest,
        verdict::Verdict,
    },
};

/// Names of media, without decryption keys and credentials.
#[derive(Clone, Debug)]
pub struct MediaSource {
    pub(super) mxc: MediaId,
    /// Homeserver from the configuration.
    base_url: Option<Arc<Url>>,
    variant: Variant,
    pub(super) is_encrypted: bool,
}

impl MediaSource {
    /// Returns the names in a request.
    #[must_use]
    pub fn from_request(request: &ScanRequest) -> Self {
        let base_url = match &request.fetch.origin {
            Origin::Configured(url) => Some(Arc::clone(url)),
            Origin::Discovered => None,
        };
        Self {
            mxc: request.fetch.media.clone(),
            base_url,
            variant: request.fetch.variant.clone(),
            is_encrypted: request.decryption.is_some(),
        }
    }

    /// Returns the name of a plain file as it was uploaded.
    #[must_use]
    pub fn original(mxc: MediaId) -> Self {
        Self { mxc, base_url: None, variant: Variant::Original, is_encrypted: false }
    }

    pub(super) fn base_url(&self) -> Option<String> {
        self.base_url.as_ref().map(ToString::to_string)
    }

    /// Returns the parameters of a thumbnail.
    pub(super) fn thumbnail(&self) -> Option<String> {
        let Variant::Thumbnail(thumbnail) = &self.variant else { return None };
        let parameters = thumbnail.parameters().into_iter();
        let known = parameters.filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        Some(known.collect::<Vec<_>>().join("&"))
    }
}

/// A verdict in memory or in the store.
#[derive(Clone, Debug)]
pub struct KnownVerdict {
    /// SHA-256 of the plaintext; `None` for a record of an earlier version of the program.
    pub content: Option<[u8; 32]>,
    /// The verdict under the present policies, with the place inside the file. Without the lists of types and hashes.
    pub verdict: CachedVerdict,
    /// Engine with the most severe finding.
    pub engine: Option<&'static str>,
    /// Results of the engines; empty for a failure, and for a record of an earlier version of the program.
    pub engines: Vec<EngineSummary>,
    /// Type by content.
    pub detected: Option<MediaType>,
    /// Start of the scan; `None` for a failure.
    pub scanned: Option<SystemTime>,
    /// Time from which the verdict is invalid.
    pub expires: Option<SystemTime>,
    /// Whether requests are answered with it: the engines and their versions are those of the scan.
    pub is_valid: bool,
    /// Whether it was read from the store. It may be in memory as well.
    pub is_stored: bool,
}

/// A media entry in memory or in the store.
#[derive(Clone, Debug)]
pub struct KnownMedia {
    /// The URI; `None` for an entry in memory.
    pub mxc: Option<String>,
    /// Homeserver from the configuration that the media was downloaded from.
    pub base_url: Option<String>,
    /// Parameters of the thumbnail; `None` for the original, and for an entry in memory.
    pub thumbnail: Option<String>,
    /// Whether the media was end-to-end encrypted; `None` for an entry in memory.
    pub is_encrypted: Option<bool>,
    /// SHA-256 of the plaintext.
    pub content: [u8; 32],
    /// Size of the plaintext, bytes.
    pub size: u64,
    /// Type by content.
    pub detected: Option<MediaType>,
    /// Time of the download; `None` for an entry in memory.
    pub downloaded: Option<SystemTime>,
    /// Time from which the entry is invalid.
    pub expires: Option<SystemTime>,
    /// Whether it was read from the store. It may be in memory as well.
    pub is_stored: bool,
}

/// What is known about a content, except its media.
#[derive(Clone, Default, Debug)]
pub struct KnownContent {
    /// In memory and in the store.
    pub verdicts: Vec<KnownVerdict>,
    /// When operators had the verdicts forgotten for the last time.
    pub forgotten: Option<SystemTime>,
}

/// Verdicts, the latest scans first.
#[derive(Clone, Debug)]
pub struct VerdictList {
    pub verdicts: Vec<KnownVerdict>,
    /// Whether all that the filter selects are listed.
    pub is_complete: bool,
}

/// Selects verdicts.
#[derive(Clone, Copy, Debug)]
pub struct VerdictFilter {
    /// Leaves out clean verdicts and failures.
    pub not_clean: bool,
    /// Leaves out verdicts of earlier scans, and failures.
    pub since: Option<SystemTime>,
    /// Maximum number.
    pub limit: usize,
}

impl VerdictFilter {
    pub(super) fn accepts(&self, known: &KnownVerdict) -> bool {
        let is_not_clean = match &known.verdict {
            Ok(Verdict::Clean { .. }) | Err(_) => false,
            Ok(Verdict::NotClean { .. } | Verdict::TypeForbidden { .. }) => true,
        };
        (is_not_clean || !self.not_clean)
            && self.since.is_none_or(|since| known.scanned.is_some_and(|time| time >= since))
    }
}

/// Number of entries that were removed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ForgetReport {
    /// Verdicts and failures.
    pub verdicts: usize,
    /// Media entries.
    pub media: usize,
    /// Whether the shared store is not available: other replicas follow as soon as it is.
    pub is_pending: bool,
}

/// The verdict store cannot be read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OperatorStoreError {
    /// The store cannot be read, or does not respond.
    #[error("the verdict store cannot be read")]
    Read,
    /// The change is not written.
    #[error("the verdict store cannot be written")]
    Write,
    /// Not all records have been removed yet.
    #[error(
        "the verdict store is not empty yet: {removed} records were removed, others remain and are removed in the background; this service does not use the store until then, other replicas may"
    )]
    Removing {
        /// Number of records that were removed from a shared store.
        removed: u64,
    },
    /// The process is stopping.
    #[error("the verdict store is closed, because the service stops")]
    Closed,
}

/// A stored outcome.
#[derive(Debug)]
pub(super) struct StoredOutcome {
    pub(super) key: RecordKey,
    pub(super) decoded: DecodedOutcome,
    pub(super) expires: Option<SystemTime>,
}

/// Records of one part of the store.
#[derive(Debug, Default)]
pub(super) struct StoredPage {
    pub(super) outcomes: Vec<StoredOutcome>,
    pub(super) media: Vec<KnownMedia>,
    /// Whether records after this part were left out.
    pub(super) is_truncated: bool,
}

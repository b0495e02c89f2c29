//! What is known about a content.

/// What is known about a content under the present engines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentState {
    /// Nothing: a scan is needed.
    Unknown,
    /// A request is answered without a scan.
    Known,
    /// As [`Known`](Self::Known): the content is malware by the lists of hashes.
    Blocked,
}

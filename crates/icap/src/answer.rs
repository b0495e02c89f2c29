//! Answers of servers about a file, and how much of the file an answer needs.

use crate::error::IcapError;

/// A server's answer about one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing found.
    Clean,
    /// Something found.
    Found {
        /// The finding of the highest precedence.
        first: Finding,
        /// At most one finding of each further kind, by precedence. Empty if the first is an infection or a refusal,
        /// because nothing else changes the verdict then.
        others: Vec<Finding>,
    },
}

/// One finding of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub kind: FindingKind,
    /// The server's name for the finding: arbitrary text, not empty.
    pub name: String,
}

/// What a server found. Ordered by precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FindingKind {
    /// Malware, or a finding of an unknown kind.
    Infected,
    /// A policy of the server forbids the file.
    Refused,
    /// Contents need a password.
    Encrypted,
    /// The server stopped at a limit inside the file, or could not decode the contents.
    Limit,
    /// The file exceeds the server's limit for whole files. Nothing was examined.
    TooLarge,
}

/// An answer and the version of the server that gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IcapReply {
    pub answer: Answer,
    /// Value of `ISTag`, which changes with the signatures and the configuration of the server.
    pub istag: Option<String>,
}

/// The part of a file that was sent to a server before its answer was complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SentPart {
    /// The whole file, with the end marker.
    Whole,
    /// The preview that the server requested, of a longer file.
    Preview,
    /// Less than the server requested.
    Less,
}

impl FindingKind {
    /// Returns whether the verdict is "not clean", whatever else a server reports.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Infected | Self::Refused)
    }

    /// Returns whether the finding implies that the server has examined the rest of the file.
    fn implies_rest_examined(self) -> bool {
        matches!(self, Self::Encrypted | Self::Limit)
    }
}

impl Answer {
    /// Returns an answer with one finding.
    pub(crate) fn found(kind: FindingKind, name: impl Into<String>) -> Self {
        Self::Found { first: Finding { kind, name: name.into() }, others: Vec::new() }
    }

    /// Returns the findings by precedence.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        let (first, others) = match self {
            Self::Clean => (None, &[] as &[Finding]),
            Self::Found { first, others } => (Some(first), others.as_slice()),
        };
        first.into_iter().chain(others)
    }

    /// Returns whether the answer holds although the rest of the response is missing or invalid: infections, refusals, and
    /// files that the server did not examine.
    pub(crate) fn is_valid_if_incomplete(&self) -> bool {
        self.findings().any(|finding| !finding.kind.implies_rest_examined())
    }

    /// Accepts the answer if the server had been sent enough of the file to give it.
    ///
    /// | answer | needs |
    /// |---|---|
    /// | clean | the file, or the preview that the server requested: RFC 3507 section 4.5 lets the server decide then |
    /// | infected, refused | nothing: what follows cannot change the verdict |
    /// | too large | nothing: the server does not count as one that examined the file |
    /// | encrypted, limit | the file: a caller that lets them pass relies on the examination of the rest |
    ///
    /// # Errors
    /// [`IcapError::PrematureAnswer`].
    pub(crate) fn require_sent(&self, sent: SentPart) -> Result<(), IcapError> {
        let is_sufficient = match sent {
            SentPart::Whole => true,
            SentPart::Preview => *self == Self::Clean || self.is_valid_if_incomplete(),
            SentPart::Less => self.is_valid_if_incomplete(),
        };
        if is_sufficient { Ok(()) } else { Err(IcapError::PrematureAnswer) }
    }
}

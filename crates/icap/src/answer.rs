//! Answers of servers about a file.

/// A server's answer about one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing found.
    Clean,
    /// Something found.
    Found {
        kind: FindingKind,
        /// The server's name for the finding: arbitrary text, not empty.
        name: String,
    },
}

impl Answer {
    /// Returns whether nothing else in the response changes the answer: malware or a refusal.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Found { kind: FindingKind::Infected | FindingKind::Refused, .. })
    }
}

/// What a server found. Ordered by precedence: if a response reports several findings, the first kind is the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FindingKind {
    /// Malware, or a finding of an unknown kind.
    Infected,
    /// A policy of the server forbids the file.
    Refused,
    /// Contents need a password.
    Encrypted,
    /// The server stopped at a limit, or could not decode the contents.
    Limit,
}

/// An answer and the version of the server that gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IcapReply {
    pub answer: Answer,
    /// Value of `ISTag`, which changes with the signatures and the configuration of the server.
    pub istag: Option<String>,
}

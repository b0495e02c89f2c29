//! Answers of servers about a file.

/// A server's answer about one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing found.
    Clean,
    /// A match.
    NotClean {
        /// The server's name for the finding: arbitrary text, not empty.
        name: String,
    },
}

/// An answer and the version of the server that gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub answer: Answer,
    /// Value of `ISTag`, which changes with the signatures and the configuration of the server.
    pub istag: Option<String>,
}

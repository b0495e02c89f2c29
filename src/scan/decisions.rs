//! Operators' decisions about whole media files: a file is allowed, whatever an engine finds, or blocked. Unlike a
//! verdict, a decision must not be lost or replaced by an earlier one, since media could pass then. So all decisions
//! are one list with a number that only rises: a replica never accepts a list with a lower number than it has seen.
//!
//! Decisions apply when a request is answered, and only to the file that a client requests, not to files inside it.
//! Lists of files (`[hashes]`) apply to both.

mod current;
mod keeper;
mod list;
mod list_file;

pub use current::Decisions;
pub use keeper::{DecisionError, DecisionKeeper};
pub use list::{DecisionAction, DecisionChange, DecisionList, MAX_COMMENT, OperatorDecision};
pub use list_file::ListFileError;

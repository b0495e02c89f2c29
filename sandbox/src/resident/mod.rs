//! Resident programs: one process that loads its data once and then forks a child for each job, instead of a new process
//! that loads the data again.
//!
//! The program is started in a sandbox job of its own, under all layers, and runs until it is replaced
//! ([`Sandbox::start_resident`](crate::Sandbox::start_resident)). It calls [`serve_resident`]. It receives descriptors of
//! media but never reads media. Only a child of one job does, after these steps (`child`):
//!
//!  1. Ask the kernel for SIGKILL when the parent ends, and compare the parent's pid: it may have ended already.
//!  2. Close every descriptor except the media, which becomes descriptor 0, and the writing end of the job's pipe, which
//!     becomes descriptor 1.
//!  3. Check that the media is a file, and lower the limits: address space, processor time, and 0 for descriptors, files and
//!     processes.
//!  4. Install the filter, an allow-list (`filter`), which forbids the calls of the steps above.
//!  5. Evaluate the media, reading what the evaluation needs, write one record, exit.
//!
//! A job has a result only if its pipe contains exactly one valid record (`record`), its child ended with exit code 0, and
//! no process can write to the pipe any more.
//!
//! Children inherit the layout of the parent's address space and the seeds of its hash tables, so media that reads them in
//! one child helps media in other children until the parent is replaced.

mod child;
mod filter;
mod media;
mod message;
mod parent;
mod record;
mod server;

pub use media::JobMedia;
pub use parent::serve_resident;
pub use record::{MAX_RESULT, RecordError};
pub use server::{JobLimits, Resident, ResidentJobError, ResidentLimits};

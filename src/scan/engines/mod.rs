//! The scan engines: script, rules, clamd and ICAP. Each determines its own [`Outcome`] for a file, and the operator's
//! [`Policies`] combine all outcomes into one verdict.
//!
//! The script and the rules run in the sandbox, as does the inspection of each file. clamd and ICAP servers are remote: this process sends them the file,
//! and they respond with a line of text. This module does not queue scans; see [`super::queue`].

pub mod bounds;
pub mod changes;
pub mod clamd;
mod combine;
mod engine;
mod engine_server;
pub mod error;
mod examination;
#[cfg(test)]
mod fake;
mod file_outcome;
mod fingerprint;
pub mod hashes;
pub mod icap;
pub mod identity;
mod names;
mod observation;
pub mod outcome;
#[cfg(any(test, fuzzing))]
pub mod outcome_fuzz;
mod outcome_record;
mod policies;
mod pool;
pub mod remote;
mod resident;
mod result;
pub mod rules;
pub mod run;
pub mod sample;
pub mod script;
pub mod script_run;
pub mod set;
pub mod settings;
mod signatures;
pub mod slots;
mod summary;
mod version_changes;

pub use bounds::{Bounds, ContentPolicy, FindingPolicy, OversizePolicy, SkipPolicy};
pub use clamd::Clamd;
pub use engine_server::EngineServer;
pub use error::{EngineFailure, EngineSetupError};
pub use file_outcome::FileOutcome;
pub use hashes::ListedFile;
pub use icap::Icap;
pub use identity::{EngineFingerprint, EngineIdentity, EngineState, Versions};
pub(in crate::scan) use names::HASHES;
pub use names::{ENGINES, engine_name};
pub use outcome::Outcome;
pub use outcome_record::DecodedOutcome;
pub use policies::{Policies, PolicyDecision, Validity};
pub use remote::RemoteEngines;
pub use resident::{Evaluator, EvaluatorEnv, MAX_FILES};
pub use run::{EngineReport, EngineRun, RunOutcome};
pub use sample::{Sample, SampleAccess};
pub use set::Engines;
pub use settings::EngineSettings;
pub use signatures::signature_time;
pub use slots::ScanSlots;
pub use summary::{CleanRun, EngineSummary};

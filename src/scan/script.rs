//! (being written)
/// Why a script that was started gave no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ScriptFailure {
    /// `scan.timeout` passed.
    #[error("it ran longer than its time limit")]
    TimedOut,
    /// A signal ended it.
    #[error("signal {0} ended it")]
    Signaled(i32),
    /// An exit code in `scan.failure_exit_codes`.
    #[error("it exited with {0}, which scan.failure_exit_codes names as a failure")]
    FailureExitCode(i32),
}

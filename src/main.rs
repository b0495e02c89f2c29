//! Program entry point: runs a helper of the service, or the command line.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // First, since this process may be a sandbox helper.
    mcs_sandbox::dispatch();
    // Or the rule evaluator, started by such a helper.
    mcs_evaluator::dispatch();
    matrix_content_scanner::cli::run()
}

//! The helper as a small program of its own, beside the server. It speaks only the protocol: a person who starts it is told
//! so. The server's own program holds the same code, and serves where this file is missing.

use std::process::ExitCode;

fn main() -> ExitCode {
    mcs_sandbox::dispatch();
    eprintln!("mcs-sandbox is started by matrix-content-scanner and speaks only its protocol");
    // EX_USAGE of sysexits(3).
    ExitCode::from(64)
}

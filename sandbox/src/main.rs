//! The helper as a separate, small executable beside the server. The server's own executable contains the same code and
//! serves as the helper where this file is missing.

use std::process::ExitCode;

fn main() -> ExitCode {
    mcs_sandbox::dispatch();
    eprintln!("mcs-sandbox is started by matrix-content-scanner and cannot be used directly");
    // EX_USAGE of sysexits(3).
    ExitCode::from(64)
}

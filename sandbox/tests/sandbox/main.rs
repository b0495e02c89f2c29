//! The sandbox from outside: this test program is the server, its helper is the real one, the programs are a few lines of
//! shell. Run it as root and as another user: each sees what the other cannot.
//!
//! A witness (`place`) is a FIFO that a script keeps open: a line from it says that the script has come so far, its
//! end-of-file that the last process which had it open is gone. So nothing here waits by the clock, but for bounds.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows these in tests, but takes the functions that tests share for others"
)]

mod cgroups;
mod cleanup;
mod directory;
mod faults;
mod hostile;
mod hostile_table;
mod lies;
mod output;
mod packets;
mod place;
mod plans;
mod restrictions;
mod verdicts;

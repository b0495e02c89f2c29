//! End-to-end tests of the sandbox: this test program acts as server, the helper is the real one, and the programs are
//! short shell scripts. Run the tests as root and as another user: some results depend on the user.
//!
//! Tests synchronise with scripts over a FIFO ([`fixture::ProcessFifo`]) instead of by delays; delays are upper bounds
//! only.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows these in tests, but not in functions shared by tests"
)]

mod cgroups;
mod cleanup;
mod directory;
mod faults;
mod faulty_helper;
mod fixture;
mod hostile;
mod hostile_table;
mod malformed_packets;
mod output;
mod priority;
mod probe;
mod resident;
mod restrictions;
mod termination;

//! The first process of a program's pid namespace: starts the program, reaps orphans, reports the program's status and
//! exits. The kernel then kills all remaining processes of the namespace. Processes inside can neither signal nor trace
//! the first process. `pid_namespaces(7)`, `PR_SET_PDEATHSIG(2const)`.

use nix::errno::Errno;
use nix::libc::c_int;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::setsid;

use crate::error::{Refusal, Step};
use crate::sys;
use crate::usage::Usage;

/// Starts `program` in a child and returns its wait status, see wait(2), and its resource usage.
///
/// `ready` blocks until the helper releases the child. From then on this process dies with the helper.
pub(super) fn run(
    ready: impl FnOnce() -> Result<(), Refusal>,
    program: impl FnOnce() -> c_int,
) -> Result<(c_int, Usage), Refusal> {
    let refused = Refusal::at(Step::Init);
    // If the helper died before this call, `ready` fails.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(&refused)?;
    // Starts a process group that the server can kill by its id.
    setsid().map_err(&refused)?;
    ready()?;
    let program = sys::fork_child(program).map_err(Refusal::at(Step::Fork))?;
    loop {
        match sys::wait_any() {
            Ok((ended, status, usage)) if ended == program => return Ok((status, usage)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(refused(errno)),
        }
    }
}

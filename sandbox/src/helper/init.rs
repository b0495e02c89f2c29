//! The first process of a program's pid namespace: it starts the program, reaps what is orphaned in there, tells how the program
//! ended, and ends; with it the kernel ends all that is left in the namespace, however often it forks. No signal from inside
//! reaches it, and nothing inside can trace it. `pid_namespaces(7)`, `PR_SET_PDEATHSIG(2const)`.

use nix::errno::Errno;
use nix::libc::c_int;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::setsid;

use crate::error::{Refusal, Step};
use crate::protocol::Usage;
use crate::sys;

/// Starts `program` in a child and waits for its end, as wait(2) gives it.
///
/// `ready` waits for the word to go on; by then the helper's death is this process's.
pub(super) fn run(
    ready: impl FnOnce() -> Result<(), Refusal>,
    program: impl FnOnce() -> c_int,
) -> Result<(c_int, Usage), Refusal> {
    let refused = Refusal::at(Step::Init);
    // A helper that died before this is found in `ready`.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(&refused)?;
    // A process group that the server can name.
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

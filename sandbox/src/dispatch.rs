//! One program, two ways of starting it: as what it is, or as the sandbox's helper, told by `argv[0]`. And the name of the
//! build, by which a server recognises a helper that was made from the same sources.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, process};

use crate::helper;

/// `argv[0]` of a helper.
pub(crate) const HELPER_NAME: &str = "mcs-sandbox-helper";

/// The argument that makes a helper print [`BUILD`] and exit.
pub(crate) const ASK_BUILD: &str = "--build";

/// Names the sources this was built from.
pub(crate) const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("MCS_SANDBOX_BUILD"));

/// Whether this program is able to be its own helper. A global, since it is a fact about the program: executing
/// `/proc/self/exe` of a program whose `main` does not dispatch would start that program again, and again.
static DISPATCHED: AtomicBool = AtomicBool::new(false);

/// Runs the helper and exits, if this process was started as one; else returns at once.
///
/// To be called first thing in `main`, before any thread, runtime or open file: the helper forks and has to be
/// single-threaded, and it closes every descriptor that it inherits.
pub fn dispatch() {
    let mut arguments = env::args_os();
    if arguments.next().is_none_or(|name| name != HELPER_NAME) {
        DISPATCHED.store(true, Ordering::Relaxed);
        return;
    }
    if arguments.next().is_some_and(|argument| argument == ASK_BUILD) {
        print!("{BUILD}");
        process::exit(0);
    }
    process::exit(helper::run())
}

pub(crate) fn is_own_helper() -> bool {
    DISPATCHED.load(Ordering::Relaxed)
}

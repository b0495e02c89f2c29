//! Selects by `argv[0]` whether this executable runs as itself or as the sandbox helper.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, process};

use crate::build_id::BUILD;
use crate::helper;

/// `argv[0]` of a helper process.
pub(crate) const HELPER_NAME: &str = "mcs-sandbox-helper";

/// Argument that makes a helper print [`BUILD`] and exit.
pub(crate) const PRINT_BUILD: &str = "--build";

/// Whether this executable can serve as its own helper. Global because it is a property of the executable: executing
/// `/proc/self/exe` of a program whose `main` does not dispatch would start that program again, recursively.
static DISPATCHED: AtomicBool = AtomicBool::new(false);

/// Runs the helper and exits, if this process was started as a helper; else returns immediately.
///
/// Must be the first call in `main`, before any thread, runtime or open file exists: the helper forks, which requires a
/// single thread, and it closes every inherited descriptor.
pub fn dispatch() {
    let mut arguments = env::args_os();
    if arguments.next().is_none_or(|name| name != HELPER_NAME) {
        DISPATCHED.store(true, Ordering::Relaxed);
        return;
    }
    if arguments.next().is_some_and(|argument| argument == PRINT_BUILD) {
        print!("{BUILD}");
        process::exit(0);
    }
    process::exit(helper::run())
}

pub(crate) fn is_own_helper() -> bool {
    DISPATCHED.load(Ordering::Relaxed)
}

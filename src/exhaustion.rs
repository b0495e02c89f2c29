//! Detects that an operation failed because this process or the machine is out of descriptors, processes or memory.
//! That is overload: it passes, says nothing about the other side, and a retry may succeed.

use std::{error::Error, io, sync::Arc};

use nix::libc::{EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, ETOOMANYREFS, EUSERS};

/// Returns whether a resource of this machine was exhausted, according to the error or one of its causes. open(2),
/// socket(2), connect(2), `pthread_create(3)`, fork(2); EUSERS: the nesting or number of user namespaces, unshare(2);
/// ETOOMANYREFS: descriptors in flight over sockets, unix(7).
///
/// EAGAIN from connect(2) to a unix socket is something else: the backlog of the other side is full. Callers that connect
/// to unix sockets must replace that error.
#[must_use]
pub(crate) fn is_exhaustion(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let shared = || error.downcast_ref().map(Arc::<io::Error>::as_ref);
        if error.downcast_ref().or_else(shared).is_some_and(is_exhaustion_io) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn is_exhaustion_io(error: &io::Error) -> bool {
    if let Some(code) = error.raw_os_error() {
        return [EMFILE, ENFILE, ENOMEM, ENOBUFS, EAGAIN, EUSERS, ETOOMANYREFS].contains(&code);
    }
    // `source` skips the error that a custom error wraps.
    error.get_ref().is_some_and(|inner| is_exhaustion(inner))
}

#[cfg(test)]
mod tests {
    use nix::libc::{EADDRINUSE, ENOENT, ENOSPC};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Box<dyn Error + Send + Sync>);

    #[test]
    fn finds_exhaustion_among_all_causes() {
        for (code, expected) in [
            (EMFILE, true),
            (ENFILE, true),
            (ENOMEM, true),
            (EAGAIN, true),
            (ENOBUFS, true),
            (EUSERS, true),
            (ETOOMANYREFS, true),
            (ENOENT, false),
            (ENOSPC, false),
            (EADDRINUSE, false),
        ] {
            let error = || io::Error::from_raw_os_error(code);
            assert_eq!(is_exhaustion(&error()), expected, "{code}");
            assert_eq!(is_exhaustion(&Outer(error().into())), expected, "{code}");
            assert_eq!(is_exhaustion(&io::Error::other(error())), expected, "{code}");
            let nested = Outer(io::Error::other(Outer(error().into())).into());
            assert_eq!(is_exhaustion(&nested), expected, "{code}");
            let shared = Outer(Box::new(Arc::new(error())));
            assert_eq!(is_exhaustion(&shared), expected, "{code}");
        }
        assert!(!is_exhaustion(&io::Error::from(io::ErrorKind::WouldBlock)));
    }
}

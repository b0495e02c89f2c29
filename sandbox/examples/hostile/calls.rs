//! System calls and their results.

use nix::errno::Errno;
use nix::libc::{self, c_long};

use crate::Attack;

pub(crate) fn attack_result<T>(result: std::io::Result<T>) -> Attack {
    io_result(result).map(drop)
}

pub(crate) fn io_result<T>(result: std::io::Result<T>) -> nix::Result<T> {
    result.map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))
}

pub(crate) fn succeeds_with(result: Attack, expected: Errno) -> Attack {
    if result == Err(expected) { Ok(()) } else { result }
}

pub(crate) fn call(number: c_long, [first, second, third]: [i64; 3]) -> Attack {
    call6(number, [first, second, third, 0, 0, 0])
}

pub(crate) fn call6(number: c_long, arguments: [i64; 6]) -> Attack {
    raw(number, arguments).map(drop)
}

pub(crate) fn raw(number: c_long, arguments: [i64; 6]) -> nix::Result<i64> {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: pointers among the arguments are to leaked or local memory of the size that the call reads or writes.
    Errno::result(unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) })
}

//! Connections that avoid connect(2) or TCP.

use nix::libc;

use crate::Attack;
use crate::calls::{call, call6, raw};

fn parse_address(text: &str) -> libc::sockaddr_in {
    let address: std::net::SocketAddrV4 = text.parse().unwrap();
    libc::sockaddr_in {
        sin_family: 2,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// Size of `sockaddr_in`, bytes.
const ADDRESS_LENGTH: i64 = 16;

/// Connects with MPTCP, which falls back to TCP if the peer does not support MPTCP.
pub(crate) fn connect_by_mptcp(text: &str) -> Attack {
    let (socket, address) = (raw(libc::SYS_socket, [2, 1, 262, 0, 0, 0])?, parse_address(text));
    call(libc::SYS_connect, [socket, (&raw const address) as i64, ADDRESS_LENGTH])
}

/// Connects with `MSG_FASTOPEN` instead of connect(2).
pub(crate) fn connect_by_sending(text: &str) -> Attack {
    let (socket, address) = (raw(libc::SYS_socket, [2, 1, 0, 0, 0, 0])?, parse_address(text));
    let flags = i64::from(libc::MSG_FASTOPEN);
    let (to, length) = ((&raw const address) as i64, ADDRESS_LENGTH);
    call6(libc::SYS_sendto, [socket, c"x".as_ptr() as i64, 1, flags, to, length])
}

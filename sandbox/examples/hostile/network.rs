//! Attacks over sockets, and connections that avoid connect(2) or TCP.

use std::net::{TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};

use nix::libc;

use crate::calls::{attack_result, call, call6, raw};
use crate::{Attack, number};

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

/// Attacks over sockets; `None` for other attacks.
pub(crate) fn attack_network(words: &[&str]) -> Option<Attack> {
    Some(match words {
        ["tcp", address] => attack_result(TcpStream::connect(address)),
        ["udp", address] => attack_result(
            UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", address)),
        ),
        ["mptcp", address] => connect_by_mptcp(address),
        ["fastopen", address] => connect_by_sending(address),
        ["listen"] => raw(libc::SYS_socket, [2, 1, 0, 0, 0, 0])
            .and_then(|socket| call(libc::SYS_listen, [socket, 1, 0])),
        ["socket", family, kind, protocol] => {
            call(libc::SYS_socket, [number(family), number(kind), number(protocol)])
        }
        ["abstract", name] => attack_result(
            SocketAddr::from_abstract_name(name)
                .and_then(|address| UnixStream::connect_addr(&address)),
        ),
        ["connect", path] => attack_result(UnixStream::connect(path)),
        ["datagram", path] => attack_result(
            UnixDatagram::pair().and_then(|(socket, _other)| socket.send_to(b"x", path)),
        ),
        _ => return None,
    })
}

/// Connects with MPTCP, which falls back to TCP if the peer does not support MPTCP.
fn connect_by_mptcp(text: &str) -> Attack {
    let (socket, address) = (raw(libc::SYS_socket, [2, 1, 262, 0, 0, 0])?, parse_address(text));
    call(libc::SYS_connect, [socket, (&raw const address) as i64, ADDRESS_LENGTH])
}

/// Connects with `MSG_FASTOPEN` instead of connect(2).
fn connect_by_sending(text: &str) -> Attack {
    let (socket, address) = (raw(libc::SYS_socket, [2, 1, 0, 0, 0, 0])?, parse_address(text));
    let flags = i64::from(libc::MSG_FASTOPEN);
    let (to, length) = ((&raw const address) as i64, ADDRESS_LENGTH);
    call6(libc::SYS_sendto, [socket, c"x".as_ptr() as i64, 1, flags, to, length])
}

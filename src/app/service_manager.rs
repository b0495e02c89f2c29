//! Protocol with the service manager, usually systemd: notifications (`sd_notify(3)`), the watchdog
//! (`sd_watchdog_enabled(3)`) and socket activation (`sd_listen_fds(3)`).

use std::{
    ffi::{OsStr, OsString},
    io,
    net::TcpListener,
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram, UnixListener},
        },
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use listenfd::ListenFd;
use nix::{
    sys::socket::{getsockopt, sockopt},
    time::{ClockId, clock_gettime},
};
use tracing::warn;

use crate::text::single_line;

/// Maximum length of a status line, bytes.
const MAX_STATUS: usize = 1000;

/// Maximum time to send a message to the manager's socket.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Connection to the service manager, if there is one. All notifications are no-ops without it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ServiceManager {
    notify: Option<Arc<NotifySocket>>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct NotifySocket {
    socket: UnixDatagram,
    manager: SocketAddr,
    /// Whether `READY=1` has been sent.
    ready: AtomicBool,
}

impl ServiceManager {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. Invalid values are logged and ignored, since an
    /// interactive shell may have inherited such variables.
    pub fn from_environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut manager = Self::default();
        let mut is_for_other_process = false;
        for (name, value) in variables {
            match name.to_str() {
                Some("NOTIFY_SOCKET") => match NotifySocket::connect(&value) {
                    Ok(notify) => manager.notify = Some(Arc::new(notify)),
                    Err(error) => warn!(%error, ?value, "invalid NOTIFY_SOCKET"),
                },
                Some("WATCHDOG_USEC") => {
                    manager.watchdog =
                        number(&value).filter(|micros| *micros > 0).map(Duration::from_micros);
                    if manager.watchdog.is_none() {
                        warn!(?value, "invalid WATCHDOG_USEC, expected a number of microseconds");
                    }
                }
                Some("WATCHDOG_PID") => {
                    is_for_other_process = number(&value) != Some(std::process::id().into());
                }
                _ => {}
            }
        }
        if is_for_other_process {
            manager.watchdog = None;
        }
        manager
    }

    /// Returns whether a manager accepts notifications.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.notify.is_some()
    }

    /// Returns the time after which the manager restarts the service unless [`ServiceManager::ping_watchdog`] is
    /// called.
    #[must_use]
    pub fn watchdog_timeout(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.is_connected())
    }

    /// Reports that the service is ready, or that a reload is complete.
    pub fn notify_ready(&self) {
        if let Some(notify) = &self.notify {
            notify.ready.store(true, Ordering::Relaxed);
        }
        self.send("READY=1");
    }

    /// Returns whether [`ServiceManager::notify_ready`] has been called with a manager present.
    #[must_use]
    pub fn has_notified_ready(&self) -> bool {
        self.notify.as_ref().is_some_and(|notify| notify.ready.load(Ordering::Relaxed))
    }

    /// Reports the start of a reload; [`ServiceManager::notify_ready`] reports its end.
    pub fn notify_reloading(&self) {
        let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from) else { return };
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// Reports that the service is stopping.
    pub fn notify_stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Sets the status line of `systemctl status`. Control characters are replaced by spaces.
    pub fn set_status(&self, text: &str) {
        self.send(&format!("STATUS={}", single_line(text, MAX_STATUS)));
    }

    /// Extends the timeout for starting, reloading or stopping to `by` from now.
    pub fn extend_timeout(&self, by: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    /// Resets the watchdog.
    pub fn ping_watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some(notify) = &self.notify else { return };
        if let Err(error) = notify.socket.send_to_addr(message.as_bytes(), &notify.manager) {
            warn!(%error, message, "cannot notify the service manager");
        }
    }
}

impl NotifySocket {
    /// Connects to a path, or to an abstract socket whose name follows `@`.
    fn connect(address: &OsStr) -> io::Result<Self> {
        let manager = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that hangs must not block the service.
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self { socket, manager, ready: AtomicBool::new(false) })
    }
}

fn number(value: &OsStr) -> Option<u64> {
    value.to_str()?.parse().ok()
}

/// Listening socket that the manager keeps open while the service restarts, so that no connection is refused.
#[derive(Debug)]
pub enum PassedSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Reason why the passed sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PassedSocketError {
    /// The service listens on a single address for clients.
    #[error("LISTEN_FDS passes {0} sockets, expected one (ListenStream= once in the socket unit)")]
    Several(usize),
    /// Datagram socket, FIFO or closed descriptor.
    #[error("LISTEN_FDS passes no TCP or unix stream socket (ListenStream=)")]
    NoStreamSocket(#[source] io::Error),
    /// Connected socket, as passed with `Accept=yes`.
    #[error("LISTEN_FDS passes a socket that does not listen (Accept=no)")]
    NotListening,
}

/// Returns the socket passed to this process, if any, and removes `LISTEN_FDS` and `LISTEN_PID` from the environment.
/// Call this once, before other descriptors are opened and before a second thread exists.
///
/// # Errors
/// [`PassedSocketError`] if the passed sockets are unusable; listening on the configured address instead would hide
/// the mistake.
pub fn take_passed_socket() -> Result<Option<PassedSocket>, PassedSocketError> {
    let mut passed = ListenFd::from_env();
    match passed.len() {
        0 => return Ok(None),
        1 => {}
        several => return Err(PassedSocketError::Several(several)),
    }
    let unix = passed.take_unix_listener(0).ok().flatten().map(PassedSocket::Unix);
    let socket = match unix {
        Some(socket) => socket,
        None => match passed.take_tcp_listener(0).map_err(PassedSocketError::NoStreamSocket)? {
            Some(socket) => PassedSocket::Tcp(socket),
            None => return Ok(None),
        },
    };
    let is_listening = match &socket {
        PassedSocket::Tcp(socket) => getsockopt(&socket.as_fd(), sockopt::AcceptConn),
        PassedSocket::Unix(socket) => getsockopt(&socket.as_fd(), sockopt::AcceptConn),
    };
    if is_listening == Ok(true) { Ok(Some(socket)) } else { Err(PassedSocketError::NotListening) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(variables: &[(&str, &str)]) -> ServiceManager {
        let pairs = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        ServiceManager::from_environment(pairs)
    }

    fn received(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut message = [0; 1024];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    #[test]
    fn sends_notifications_to_path_and_abstract_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("mcs-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}")),
        ] {
            let manager = manager(&[("NOTIFY_SOCKET", &address)]);
            assert!(manager.is_connected());
            manager.notify_ready();
            assert_eq!(received(&socket), "READY=1");
            manager.set_status("two\nREADY=1");
            assert_eq!(received(&socket), "STATUS=two READY=1", "one line");
            manager.extend_timeout(Duration::from_secs(30));
            assert_eq!(received(&socket), "EXTEND_TIMEOUT_USEC=30000000");
            manager.notify_reloading();
            let message = received(&socket);
            let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(time.parse::<u64>().unwrap() > 0);
            manager.notify_stopping();
            assert_eq!(received(&socket), "STOPPING=1");
            manager.ping_watchdog();
            assert_eq!(received(&socket), "WATCHDOG=1");
        }
    }

    #[test]
    fn ignores_invalid_notify_socket() {
        for variables in [
            &[][..],
            &[("NOTIFY_SOCKET", "")],
            &[("NOTIFY_SOCKET", "relative")],
            &[("NOTIFY_SOCKET", "vsock:2:1234")],
            &[("WATCHDOG_USEC", "5000000")],
        ] {
            let manager = manager(variables);
            assert!(!manager.is_connected(), "{variables:?}");
            assert_eq!(manager.watchdog_timeout(), None, "{variables:?}");
            manager.notify_ready();
        }
        // A notification to a missing socket has no effect.
        manager(&[("NOTIFY_SOCKET", "/nowhere/notify")]).notify_ready();
    }

    #[test]
    fn watchdog_requires_own_pid_and_positive_number() {
        let own = std::process::id().to_string();
        let second = Some(Duration::from_secs(1));
        for (microseconds, pid, expected) in [
            ("1000000", None, second),
            ("1000000", Some(&*own), second),
            ("1000000", Some("1"), None),
            ("1000000", Some("x"), None),
            ("0", None, None),
            ("-1", None, None),
            ("soon", None, None),
        ] {
            let mut variables =
                vec![("NOTIFY_SOCKET", "/run/notify"), ("WATCHDOG_USEC", microseconds)];
            variables.extend(pid.map(|pid| ("WATCHDOG_PID", pid)));
            assert_eq!(manager(&variables).watchdog_timeout(), expected, "{variables:?}");
        }
    }
}

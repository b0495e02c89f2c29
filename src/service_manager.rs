//! The service manager that started this process, systemd as a rule: what it is told, how often it wants to see that the
//! service lives, and the socket that it may pass. Knows nothing of what the service does. `sd_notify(3)`,
//! `sd_listen_fds(3)`, `sd_watchdog_enabled(3)`.

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

/// How long a message may wait for room in the manager's socket.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whom to tell; nobody, where no manager listens. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ServiceManager {
    notify: Option<Arc<Notify>>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Notify {
    socket: UnixDatagram,
    manager: SocketAddr,
    /// Whether it has been told that the service is ready.
    ready: AtomicBool,
}

impl ServiceManager {
    /// As the variables say that it passes: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. What cannot be used is logged,
    /// and does without: a person's shell may have got such variables from somewhere.
    pub fn from_environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut this = Self::default();
        let mut of_another = false;
        for (name, value) in variables {
            match name.to_str() {
                Some("NOTIFY_SOCKET") => match Notify::to(&value) {
                    Ok(notify) => this.notify = Some(Arc::new(notify)),
                    Err(error) => warn!(%error, ?value, "NOTIFY_SOCKET cannot be used"),
                },
                Some("WATCHDOG_USEC") => {
                    this.watchdog = number(&value).filter(|it| *it > 0).map(Duration::from_micros);
                    if this.watchdog.is_none() {
                        warn!(?value, "WATCHDOG_USEC is not a number of microseconds");
                    }
                }
                Some("WATCHDOG_PID") => {
                    of_another = number(&value) != Some(std::process::id().into());
                }
                _ => {}
            }
        }
        if of_another {
            this.watchdog = None;
        }
        this
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.notify.is_some()
    }

    /// The manager restarts the service if it hears nothing of [`ServiceManager::alive`] for so long.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.listens())
    }

    /// The service does what it is there for; also the end of a reload.
    pub fn ready(&self) {
        if let Some(notify) = &self.notify {
            notify.ready.store(true, Ordering::Relaxed);
        }
        self.tell("READY=1");
    }

    /// Whether somebody listens who takes the start for over.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.notify.as_ref().is_some_and(|notify| notify.ready.load(Ordering::Relaxed))
    }

    /// The configuration is being read again; [`ServiceManager::ready`] says that this is over.
    pub fn reloading(&self) {
        let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from) else { return };
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The service has been asked to stop, and does.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// A line for people, in `systemctl status`.
    pub fn status(&self, text: &str) {
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.tell(&format!("STATUS={line}"));
    }

    /// Starting, reloading or stopping takes this much longer, from now on.
    pub fn extend_timeout(&self, by: Duration) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    /// The watchdog's food.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, message: &str) {
        let Some(notify) = &self.notify else { return };
        if let Err(error) = notify.socket.send_to_addr(message.as_bytes(), &notify.manager) {
            warn!(%error, message, "the service manager could not be told");
        }
    }
}

impl Notify {
    /// A path, or `@` and the name of an abstract socket.
    fn to(address: &OsStr) -> io::Result<Self> {
        let manager = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that hangs must not take the service with it.
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, manager, ready: AtomicBool::new(false) })
    }
}

fn number(value: &OsStr) -> Option<u64> {
    value.to_str()?.parse().ok()
}

/// A listening socket that the manager keeps while the service restarts, so that nobody is refused meanwhile.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum PassedSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Why what was passed cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum PassedSocketError {
    /// There is one address that clients ask.
    #[error("LISTEN_FDS passes {0} sockets, expected one (ListenStream= once in the socket unit)")]
    Several(usize),
    /// A datagram socket, a FIFO, a closed descriptor.
    #[error("LISTEN_FDS passes no TCP or unix stream socket (ListenStream=)")]
    NoStreamSocket(#[source] io::Error),
    /// A connection, as `Accept=yes` passes them.
    #[error("LISTEN_FDS passes a socket that does not listen (Accept=no)")]
    NotListening,
}

/// The socket that was passed to this process, if there is one. To be asked once, before anything else opens a descriptor and
/// before there is a second thread: it takes `LISTEN_FDS` and `LISTEN_PID` out of the environment.
///
/// # Errors
/// [`PassedSocketError`]: listening elsewhere would look as if all were well.
pub fn passed_socket() -> Result<Option<PassedSocket>, PassedSocketError> {
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
    let listens = match &socket {
        PassedSocket::Tcp(socket) => getsockopt(&socket.as_fd(), sockopt::AcceptConn),
        PassedSocket::Unix(socket) => getsockopt(&socket.as_fd(), sockopt::AcceptConn),
    };
    if listens == Ok(true) { Ok(Some(socket)) } else { Err(PassedSocketError::NotListening) }
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
    fn what_is_told_arrives_at_a_path_and_at_an_abstract_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("mcs-test-{}", std::process::id());
        let of_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (UnixDatagram::bind_addr(&of_name).unwrap(), format!("@{name}")),
        ] {
            let manager = manager(&[("NOTIFY_SOCKET", &address)]);
            assert!(manager.listens());
            manager.ready();
            assert_eq!(received(&socket), "READY=1");
            manager.status("two\nREADY=1");
            assert_eq!(received(&socket), "STATUS=two READY=1", "one line");
            manager.extend_timeout(Duration::from_secs(30));
            assert_eq!(received(&socket), "EXTEND_TIMEOUT_USEC=30000000");
            manager.reloading();
            let said = received(&socket);
            let time = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(time.parse::<u64>().unwrap() > 0);
            manager.stopping();
            assert_eq!(received(&socket), "STOPPING=1");
            manager.alive();
            assert_eq!(received(&socket), "WATCHDOG=1");
        }
    }

    #[test]
    fn without_a_manager_nobody_is_told_and_nothing_is_asked() {
        for variables in [
            &[][..],
            &[("NOTIFY_SOCKET", "")],
            &[("NOTIFY_SOCKET", "relative")],
            &[("NOTIFY_SOCKET", "vsock:2:1234")],
            &[("WATCHDOG_USEC", "5000000")],
        ] {
            let manager = manager(variables);
            assert!(!manager.listens(), "{variables:?}");
            assert_eq!(manager.watchdog(), None, "{variables:?}");
            manager.ready();
        }
        // A manager that has gone is told to nobody's harm.
        manager(&[("NOTIFY_SOCKET", "/nowhere/notify")]).ready();
    }

    #[test]
    fn the_watchdog_is_this_processs_and_a_number() {
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
            assert_eq!(manager(&variables).watchdog(), expected, "{variables:?}");
        }
    }
}

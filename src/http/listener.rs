//! Listening sockets: a TCP address, the path of a Unix socket, or a listener passed by systemd or a test.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream, lookup_host};

use super::{Listen, connection::Peer};
use crate::ownership;

/// Length of the kernel's queue of connections that wait while `web.max_connections` are open.
const BACKLOG: u32 = 1024;

/// Listening socket.
#[derive(Debug)]
pub struct Listener(Socket);

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// `None` for a passed socket, whose file the creator removes.
        _path: Option<SocketPath>,
    },
}

/// Local address of a [`Listener`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalAddr {
    /// Address with the actual port.
    Tcp(SocketAddr),
    /// Path; `None` for an unnamed socket.
    Unix(Option<PathBuf>),
}

/// Reason why a listener could not be created.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host is neither an address nor a name that resolves.
    #[error("cannot resolve the host {host}")]
    Resolve {
        /// Host as configured.
        host: String,
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot listen on {address}")]
    Bind {
        /// TCP address or path.
        address: String,
        source: io::Error,
    },
    /// The path exists and is not a socket; the file is left unchanged.
    #[error("cannot listen on {}: the file exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
}

/// Accepted connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Binds the address and starts to listen.
    ///
    /// A Unix socket gets mode 0666, which makes it as accessible as a loopback port; the mode of its directory
    /// restricts access. An existing socket at the path is replaced if no process listens on it.
    pub async fn bind(listen: &Listen) -> Result<Self, BindError> {
        Self::bind_with_mode(listen, 0o666).await
    }

    /// Binds the address as [`bind`](Self::bind), with mode 0600 for a Unix socket: only this user and root can connect.
    pub async fn bind_private(listen: &Listen) -> Result<Self, BindError> {
        Self::bind_with_mode(listen, 0o600).await
    }

    async fn bind_with_mode(listen: &Listen, mode: u32) -> Result<Self, BindError> {
        match listen {
            Listen::Tcp { host, port } => bind_tcp(host, *port).await,
            Listen::Unix(path) => bind_unix(path, mode).await,
        }
    }

    /// Wraps a listening TCP socket.
    pub fn from_std_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(Socket::Tcp(TcpListener::from_std(listener)?)))
    }

    /// Wraps a listening Unix socket. Dropping the listener does not remove the path.
    pub fn from_std_unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(Socket::Unix { listener: UnixListener::from_std(listener)?, _path: None }))
    }

    /// Returns the local address, with the port that the system selected for port 0.
    pub fn local_addr(&self) -> io::Result<LocalAddr> {
        match &self.0 {
            Socket::Tcp(listener) => listener.local_addr().map(LocalAddr::Tcp),
            Socket::Unix { listener, .. } => listener
                .local_addr()
                .map(|address| LocalAddr::Unix(address.as_pathname().map(Path::to_owned))),
        }
    }

    /// Accepts the next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.0 {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Responses are written in large pieces; Nagle's algorithm would only delay the last one.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                Ok((Stream::Tcp(stream), Peer::Address(address.ip().to_canonical())))
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Ok((Stream::Unix(stream), Peer::Local { uid }))
            }
        }
    }
}

async fn bind_tcp(host: &str, port: u16) -> Result<Listener, BindError> {
    // An IPv6 literal may have brackets, as in a URL.
    let name = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let resolve = |source| BindError::Resolve { host: host.to_owned(), source };
    let mut last_error = resolve(io::Error::from(io::ErrorKind::NotFound));
    for address in lookup_host((name, port)).await.map_err(resolve)? {
        match listen_tcp(address) {
            Ok(listener) => return Ok(Listener(Socket::Tcp(listener))),
            Err(source) => {
                last_error = BindError::Bind { address: address.to_string(), source };
            }
        }
    }
    Err(last_error)
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Otherwise a restart would fail while old connections are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    if address.ip().is_unspecified() && address.is_ipv6() {
        // Overrides `net.ipv6.bindv6only`. The call fails on a kernel without IPv4, where IPv6 alone is correct.
        if let Err(error) = setsockopt(&socket, sockopt::Ipv6V6Only, &false) {
            tracing::debug!(%error, "cannot clear IPV6_V6ONLY");
        }
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn bind_unix(path: &Path, mode: u32) -> Result<Listener, BindError> {
    let bind_error = |source| BindError::Bind { address: path.display().to_string(), source };
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path).await?;
            UnixListener::bind(path)
        }
        result => result,
    }
    .map_err(bind_error)?;
    let socket_path = SocketPath::new(path).map_err(bind_error)?;
    set_mode(path, mode).map_err(bind_error)?;
    Ok(Listener(Socket::Unix { listener, _path: Some(socket_path) }))
}

/// Sets the mode, independent of the umask. Changes the mode only if the path is a socket: another user may
/// have placed a symbolic link there, and the mode of the link's target would change.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let socket = ownership::open_path_only(path)?;
    if !socket.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("another file has taken the socket's place"));
    }
    // fchmod(2) refuses O_PATH descriptors; this way is proc(5)'s.
    let itself = format!("/proc/self/fd/{}", socket.as_raw_fd());
    fs::set_permissions(itself, fs::Permissions::from_mode(mode))
}

async fn remove_stale(path: &Path) -> Result<(), BindError> {
    let bind_error = |source| BindError::Bind { address: path.display().to_string(), source };
    if !fs::symlink_metadata(path).map_err(bind_error)?.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    // Only ECONNREFUSED proves that no process listens. Other errors, such as a denied permission or a full
    // backlog, can come from a running server.
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(bind_error)
        }
        _ => Err(bind_error(io::Error::from(io::ErrorKind::AddrInUse))),
    }
}

/// Socket file that is removed on drop, unless another file has replaced it.
#[derive(Debug)]
struct SocketPath {
    path: PathBuf,
    file_id: (u64, u64),
}

impl SocketPath {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file_id: file_id(path)? })
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let is_unchanged = file_id(&self.path).is_ok_and(|current| current == self.file_id);
        if is_unchanged && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "cannot remove the socket file");
        }
    }
}

/// Returns device and inode.
fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => path.display().fmt(f),
            Self::Unix(None) => f.write_str("unnamed Unix socket"),
        }
    }
}

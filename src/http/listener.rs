//! Where connections come from: a TCP address, a unix socket's path, or a listener that somebody
//! else has made (systemd, a test). Knows nothing of HTTP.

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

/// Connections that the kernel keeps for us while `web.max_connections` are open.
const BACKLOG: u32 = 1024;

/// A socket that listens.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Absent where somebody else made the socket, whose it is to remove.
        _path: Option<SocketPath>,
    },
}

/// Where a [`Listener`] listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalAddr {
    /// An address with its real port.
    Tcp(SocketAddr),
    /// A path; none for a socket without a name.
    Unix(Option<PathBuf>),
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host is no address, and no name that resolves.
    #[error("cannot find the address of {host}")]
    Resolve {
        /// As configured.
        host: String,
        #[expect(missing_docs, reason = "the name says it")]
        source: io::Error,
    },
    /// The system refused.
    #[error("cannot listen on {at}")]
    Bind {
        /// Address or path.
        at: String,
        #[expect(missing_docs, reason = "the name says it")]
        source: io::Error,
    },
    /// Something that is no socket lies at the path; it is left alone.
    #[error("cannot listen on {}: a file that is no socket is there", .0.display())]
    NotASocket(PathBuf),
}

/// An accepted connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Listens.
    ///
    /// A unix socket gets mode 0666: it is as open as the loopback port it stands for, and its
    /// directory's mode says who reaches it. A socket that is already at the path is replaced if
    /// nobody listens there any more.
    pub async fn bind(listen: &Listen) -> Result<Self, BindError> {
        match listen {
            Listen::Tcp { host, port } => bind_tcp(host, *port).await,
            Listen::Unix(path) => bind_unix(path).await,
        }
    }

    /// Takes a listening TCP socket over.
    pub fn from_std_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(Kind::Tcp(TcpListener::from_std(listener)?)))
    }

    /// Takes a listening unix socket over; its path stays when the listener goes.
    pub fn from_std_unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(Kind::Unix { listener: UnixListener::from_std(listener)?, _path: None }))
    }

    /// Where it listens; with the port that the system chose for port 0.
    pub fn local_addr(&self) -> io::Result<LocalAddr> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map(LocalAddr::Tcp),
            Kind::Unix { listener, .. } => listener
                .local_addr()
                .map(|address| LocalAddr::Unix(address.as_pathname().map(Path::to_owned))),
        }
    }

    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers are written whole: waiting for more to send only delays their end.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY");
                }
                Ok((Stream::Tcp(stream), Peer::Address(address.ip().to_canonical())))
            }
            Kind::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::Local))
            }
        }
    }
}

async fn bind_tcp(host: &str, port: u16) -> Result<Listener, BindError> {
    // An IPv6 literal may be written as in a URL.
    let name = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let resolve = |source| BindError::Resolve { host: host.to_owned(), source };
    let mut refused = resolve(io::Error::from(io::ErrorKind::NotFound));
    for address in lookup_host((name, port)).await.map_err(resolve)? {
        match listen_on(address) {
            Ok(listener) => return Ok(Listener(Kind::Tcp(listener))),
            Err(source) => refused = BindError::Bind { at: address.to_string(), source },
        }
    }
    Err(refused)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restart must not wait for old connections in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    if address.ip().is_unspecified() && address.is_ipv6() {
        // Otherwise `net.ipv6.bindv6only` decides. A kernel without IPv4 refuses: then it is IPv6.
        if let Err(error) = setsockopt(&socket, sockopt::Ipv6V6Only, &false) {
            tracing::debug!(%error, "IPV6_V6ONLY");
        }
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn bind_unix(path: &Path) -> Result<Listener, BindError> {
    let refused = |source| BindError::Bind { at: path.display().to_string(), source };
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path).await?;
            UnixListener::bind(path)
        }
        other => other,
    }
    .map_err(refused)?;
    let owned = SocketPath::of(path).map_err(refused)?;
    let_all_connect(path).map_err(refused)?;
    Ok(Listener(Kind::Unix { listener, _path: Some(owned) }))
}

/// Lets all users connect, whatever the umask is. Never by what another user has put at the path: a symbolic link would give the
/// mode to what it leads to.
fn let_all_connect(path: &Path) -> io::Result<()> {
    let socket = ownership::open_itself(path)?;
    if !socket.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("another file has taken the socket's place"));
    }
    // fchmod(2) refuses O_PATH descriptors; this way is proc(5)'s.
    let itself = format!("/proc/self/fd/{}", socket.as_raw_fd());
    fs::set_permissions(itself, fs::Permissions::from_mode(0o666))
}

async fn remove_stale(path: &Path) -> Result<(), BindError> {
    let refused = |source| BindError::Bind { at: path.display().to_string(), source };
    if !fs::symlink_metadata(path).map_err(refused)?.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    // Only a refused connection proves that nobody listens: one that is not let in, or that finds
    // a full backlog, may have met a living server.
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(refused)
        }
        _ => Err(refused(io::Error::from(io::ErrorKind::AddrInUse))),
    }
}

/// A socket file that goes with its listener, unless another has taken its place.
#[derive(Debug)]
struct SocketPath {
    path: PathBuf,
    file: (u64, u64),
}

impl SocketPath {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: identity(path)? })
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let ours = identity(&self.path).is_ok_and(|now| now == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the socket's file stays");
        }
    }
}

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => path.display().fmt(f),
            Self::Unix(None) => f.write_str("a unix socket without a name"),
        }
    }
}

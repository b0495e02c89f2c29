//! Key files on disk: read whole into zeroizing memory, or made so that no half-written or readable
//! key is ever seen. Knows no format.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use crate::ownership::file_exposure;

/// Far above any key; keeps a wrong path (a log, a device) from being read into memory.
const MAX_SIZE: usize = 16 * 1024;

const REMEDY: &str = "which crypto.generate = true does not accept: give the file to root or the service's user, or set it to false";

/// A key file.
pub(super) struct KeyFile {
    /// As text; key files are base64.
    pub(super) content: Zeroizing<String>,
    /// Permission bits.
    pub(super) mode: u32,
}

/// Reads a key. Rejects one that another user may have put there, where the service makes the file `itself`: symbolic links, and
/// files that belong to a user other than root and the service's or that every user may write. A file of the operator's may be
/// a link, as mounted secrets are.
pub(super) fn read(path: &Path, itself: bool) -> io::Result<KeyFile> {
    let link = if itself { OFlag::O_NOFOLLOW } else { OFlag::empty() };
    // Without O_NONBLOCK a FIFO at this path would hang the start.
    let flags = OFlag::O_NONBLOCK | link;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ELOOP) if itself => {
            io::Error::other(format!("it is a symbolic link, {REMEDY}"))
        }
        _ => error,
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if itself && let Some(exposure) = file_exposure(path, &file)? {
        return Err(io::Error::other(format!("{exposure}, {REMEDY}")));
    }
    // The whole capacity at once: a buffer that grows leaves copies behind that nobody wipes.
    let mut content = Zeroizing::new(String::with_capacity(MAX_SIZE + 1));
    file.take(MAX_SIZE as u64 + 1).read_to_string(&mut content)?;
    if content.len() > MAX_SIZE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large for a key"));
    }
    Ok(KeyFile { content, mode: metadata.permissions().mode() & 0o7777 })
}

/// Fails with `AlreadyExists` rather than replacing a key.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.exists() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "its folder does not exist"));
    }
    let mode = std::fs::Permissions::from_mode(0o600);
    let mut file = tempfile::Builder::new()
        .prefix(".request-key-")
        .permissions(mode.clone())
        .tempfile_in(directory)
        // The library's words name the temporary file, which nobody has heard of.
        .map_err(|error| io::Error::from(error.kind()))?;
    // Whatever the umask is.
    file.as_file().set_permissions(mode)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    // The name is in the directory, not in the file.
    File::open(directory)?.sync_all()
}

//! Key files: read into zeroizing memory, and created atomically with mode 0600.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use super::notice::KeyNotice;
use crate::ownership::file_exposure;

/// Maximum size in bytes, far above any key, so that a wrong path is not read into memory.
const MAX_SIZE: usize = 16 * 1024;

const REMEDY: &str = "which crypto.generate = true does not accept: give the file to root or the service's user, or set crypto.generate to false";

pub(super) struct KeyFile {
    /// Content; key files are base64 text.
    pub(super) content: Zeroizing<String>,
    /// Permission bits.
    pub(super) mode: u32,
}

/// Reads a key. If the service creates the file (`generated`), rejects a file that another user may have placed at the
/// path: a symbolic link, a file owned by neither root nor the service's user, or a file that all users may write. A
/// file that the operator manages may be a symbolic link, as mounted secrets are.
pub(super) fn read(path: &Path, generated: bool) -> io::Result<KeyFile> {
    let link = if generated { OFlag::O_NOFOLLOW } else { OFlag::empty() };
    // Without O_NONBLOCK, opening a FIFO at this path would block.
    let flags = OFlag::O_NONBLOCK | link;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ELOOP) if generated => {
            io::Error::other(format!("it is a symbolic link, {REMEDY}"))
        }
        _ => error,
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if generated && let Some(exposure) = file_exposure(path, &file)? {
        return Err(io::Error::other(format!("{exposure}, {REMEDY}")));
    }
    // Full capacity from the start: growing would leave copies that are not wiped.
    let mut content = Zeroizing::new(String::with_capacity(MAX_SIZE + 1));
    file.take(MAX_SIZE as u64 + 1).read_to_string(&mut content)?;
    if content.len() > MAX_SIZE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large for a key"));
    }
    Ok(KeyFile { content, mode: metadata.permissions().mode() & 0o7777 })
}

/// Reads a secret that the operator has placed in a file. White space around it does not count.
///
/// # Errors
/// If the file cannot be read, is empty, larger than 16 KiB, or not a text.
pub fn read_secret(path: &Path) -> io::Result<(Zeroizing<String>, Option<KeyNotice>)> {
    let KeyFile { content, mode } = read(path, false)?;
    let secret = Zeroizing::new(content.trim().to_owned());
    if secret.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
    }
    let is_exposed = mode & 0o007 != 0;
    let notice = is_exposed.then(|| KeyNotice::ReadableByOthers { path: path.to_owned(), mode });
    Ok((secret, notice))
}

/// Creates a key file. Fails with [`io::ErrorKind::AlreadyExists`] instead of replacing an existing one.
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
        // The error text of the library contains the name of the temporary file.
        .map_err(|error| io::Error::from(error.kind()))?;
    // Whatever the umask is.
    file.as_file().set_permissions(mode)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    // Makes the directory entry durable.
    File::open(directory)?.sync_all()
}

//! Immutable files in memory. `memfd_create(2)`, fcntl(2).

use std::fs::File;
use std::io::{self, Write as _};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// `MFD_NOEXEC_SEAL`, Linux 6.3: the file can never be made executable. Required if `vm.memfd_noexec` is 2.
const NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(0x8);

/// Creates a file in memory with the given content. Seals prevent all later changes, including changes of the seals, so
/// that programs in jobs can receive its descriptor. The file has no path. `name` is displayed in `/proc/PID/fd`.
pub fn sealed(name: &str, content: &[u8]) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = match memfd_create(name, flags | NOEXEC_SEAL) {
        // Older kernels reject the flag.
        Err(Errno::EINVAL) => memfd_create(name, flags)?,
        created => created?,
    };
    let mut file = File::from(file);
    file.write_all(content)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::map_sealed;

    #[test]
    fn sealed_file_cannot_be_changed() {
        let file = sealed("test", b"content").unwrap();
        assert_eq!(map_sealed(&file).unwrap(), b"content");
        for result in [file.write_all_at(b"x", 0), file.set_len(3), file.set_len(20)] {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(Errno::EPERM as i32));
        }
        // Reopening the file for writing does not help.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let reopened = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(reopened.write_at(b"x", 0).is_err());
        let unsealed = fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::empty()));
        assert_eq!(unsealed, Err(Errno::EPERM));
        assert_eq!(fs::read(&path).unwrap(), b"content");
    }
}

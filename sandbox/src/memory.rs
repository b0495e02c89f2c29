//! Files in memory that can no longer be changed. `memfd_create(2)`, fcntl(2).

use std::fs::File;
use std::io::{self, Write as _};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// `MFD_NOEXEC_SEAL`, Linux 6.3: the file can never be executed. Required where `vm.memfd_noexec` is 2.
const NEVER_EXECUTABLE: MFdFlags = MFdFlags::from_bits_retain(0x8);

/// Returns a file in memory with this content. Seals forbid every later change, of the seals too, so programs in jobs can have
/// its descriptor, and no path leads to it. `name` is shown in `/proc/PID/fd`.
pub fn sealed(name: &str, content: &[u8]) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = match memfd_create(name, flags | NEVER_EXECUTABLE) {
        // An older kernel rejects unknown flags.
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
    use crate::map_file;

    #[test]
    fn a_sealed_file_has_its_content_and_takes_no_other() {
        let file = sealed("test", b"content").unwrap();
        assert_eq!(map_file(&file).unwrap(), b"content");
        for changed in [file.write_all_at(b"x", 0), file.set_len(3), file.set_len(20)] {
            assert_eq!(changed.unwrap_err().raw_os_error(), Some(Errno::EPERM as i32));
        }
        // Nor opened once more.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let again = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(again.write_at(b"x", 0).is_err());
        let unsealed = fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::empty()));
        assert_eq!(unsealed, Err(Errno::EPERM));
        assert_eq!(fs::read(&path).unwrap(), b"content");
    }
}

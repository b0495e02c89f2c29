//! Mappings of sealed files in memory.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem;
use std::num::NonZero;
use std::ops::Deref;
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The content of a sealed file, mapped for reading, independent of the descriptor's lifetime. mmap(2).
#[derive(Debug)]
pub struct SealedMapping {
    /// The first byte; `None` for an empty file, because mappings of length 0 are invalid.
    start: Option<NonNull<c_void>>,
    length: usize,
}

// SAFETY: the mapped bytes do not change, and the mapping does not depend on a thread.
unsafe impl Send for SealedMapping {}
// SAFETY: as above.
unsafe impl Sync for SealedMapping {}

impl SealedMapping {
    /// Maps a file.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) unless the file is sealed against writing and shrinking, as by
    /// [`sealed`](crate::sealed): otherwise another process could change the bytes, or remove them, which would end this
    /// process with SIGBUS.
    pub fn new(file: &File) -> io::Result<Self> {
        // Fails for files that cannot have seals. Seals are never removed: fcntl(2).
        let seals = fcntl(file, FcntlArg::F_GET_SEALS)
            .map_or(SealFlag::empty(), SealFlag::from_bits_retain);
        if !seals.contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK) {
            let message = "the file is not sealed against writing and shrinking";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let length = usize::try_from(file.metadata()?.len())
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let Some(mapped) = NonZero::new(length) else { return Ok(Self { start: None, length }) };
        let (rights, flags) = (ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE);
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory that is in use.
        let start = unsafe { mmap(None, mapped, rights, flags, file, 0) }?;
        Ok(Self { start: Some(start), length })
    }
}

impl Deref for SealedMapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(start) = self.start else { return &[] };
        // SAFETY: `length` bytes from `start` on are mapped until `self` is dropped. The seals keep every process from
        // changing them, and the file at least this long.
        unsafe { std::slice::from_raw_parts(start.cast::<u8>().as_ptr(), self.length) }
    }
}

impl AsRef<[u8]> for SealedMapping {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for SealedMapping {
    fn drop(&mut self) {
        let Some(start) = self.start else { return };
        // SAFETY: unmaps exactly what `new` mapped; slices of it do not outlive `self`.
        let _ = unsafe { munmap(start, self.length) };
    }
}

/// Maps a file like [`SealedMapping::new`], until this process exits.
///
/// # Errors
/// As [`SealedMapping::new`].
pub fn map_sealed(file: &File) -> io::Result<&'static [u8]> {
    let mapping = SealedMapping::new(file)?;
    let Some(start) = mapping.start else { return Ok(&[]) };
    // SAFETY: as in `deref`. The bytes stay mapped, because the mapping is not dropped.
    let bytes = unsafe { std::slice::from_raw_parts(start.cast::<u8>().as_ptr(), mapping.length) };
    mem::forget(mapping);
    Ok(bytes)
}

//! Remaining limits for one media file.

use super::settings::UnpackSettings;

/// Maximum size of a decoder's dictionary or window, bytes. `xz -9` needs 64 MiB. A stream that needs more reaches a
/// limit.
pub(crate) const MAX_WINDOW: usize = 64 << 20;

/// Names of the limits in reports: the keys of the configuration.
pub(super) const MAX_TOTAL: &str = "unpack.max_total";
pub(super) const MAX_FILE: &str = "unpack.max_file";
pub(super) const MAX_FILES: &str = "unpack.max_files";
pub(super) const MAX_DEPTH: &str = "unpack.max_depth";

/// Maximum number of documents in one media file for which a password is tried. Each attempt takes up to 50 ms.
const MAX_PASSWORD_ATTEMPTS: u32 = 20;

/// Consumption of the limits by one media file.
#[derive(Debug)]
pub(super) struct UnpackBudget {
    /// Bytes that may still be unpacked.
    total: u64,
    /// Objects that may still be unpacked.
    files: u64,
    max_file: u64,
    pub(super) memory: FreeMemory,
    /// Number of documents for which a password may still be tried.
    password_attempts: u32,
}

/// Bytes that may still be held in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreeMemory {
    objects: u64,
    /// For the window of a decoder that is in use while objects are examined. More such windows take memory of objects.
    window: u64,
}

impl UnpackBudget {
    pub(super) fn new(settings: &UnpackSettings) -> Self {
        Self {
            total: settings.max_total,
            files: settings.max_files,
            max_file: settings.max_file,
            memory: FreeMemory {
                objects: settings.max_file.saturating_mul(2),
                window: MAX_WINDOW as u64,
            },
            password_attempts: MAX_PASSWORD_ATTEMPTS,
        }
    }

    /// Counts an object.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn take_file(&mut self) -> Result<(), &'static str> {
        self.files = self.files.checked_sub(1).ok_or(MAX_FILES)?;
        Ok(())
    }

    /// Counts `length` bytes of an object that is part of its container and takes no memory.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn take_bytes(&mut self, length: usize) -> Result<(), &'static str> {
        self.total = self.total.checked_sub(length as u64).ok_or(MAX_TOTAL)?;
        Ok(())
    }

    /// Counts an attempt to decrypt a document. Returns whether it is allowed.
    pub(super) fn take_password_attempt(&mut self) -> bool {
        let remaining = self.password_attempts.checked_sub(1);
        self.password_attempts = remaining.unwrap_or_default();
        remaining.is_some()
    }

    /// Returns the maximum length of the next object in memory, and the limit that a longer one exceeds.
    pub(super) fn max_length(&self) -> (usize, &'static str) {
        let (length, limit) = if self.total < self.max_file {
            (self.total, MAX_TOTAL)
        } else {
            (self.max_file, MAX_FILE)
        };
        let (length, limit) = if self.memory.objects < length {
            (self.memory.objects, MAX_FILE)
        } else {
            (length, limit)
        };
        (usize::try_from(length).unwrap_or(usize::MAX), limit)
    }

    /// Counts the memory of an object, at most [`Self::max_length`], until [`Self::release`].
    pub(super) fn reserve(&mut self, length: usize) {
        self.memory.objects = self.memory.objects.saturating_sub(length as u64);
    }

    pub(super) fn release(&mut self, length: usize) {
        self.memory.objects = self.memory.objects.saturating_add(length as u64);
    }

    /// Counts a window until the caller restores the former value of [`Self::memory`].
    pub(super) fn reserve_window(&mut self, length: usize) {
        let from_window = self.memory.window.min(length as u64);
        self.memory.window -= from_window;
        self.memory.objects = self.memory.objects.saturating_sub(length as u64 - from_window);
    }
}

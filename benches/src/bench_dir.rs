//! Directory for all files of one measurement. Removed at the end.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use mcs_sandbox::remove_tree;
use tempfile::TempDir;

/// Time for killed processes to stop writing.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct BenchDir {
    directory: TempDir,
}

impl BenchDir {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("mcs-benches-").tempdir().unwrap();
        // Scripts run as another user if this process is root.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for BenchDir {
    fn drop(&mut self) {
        let end = Instant::now() + REMOVE_TIMEOUT;
        while let Err(error) = remove_tree(self.path()) {
            if Instant::now() > end {
                eprintln!("failed to remove {}: {error}", self.path().display());
                return;
            }
            sleep(Duration::from_millis(20));
        }
    }
}

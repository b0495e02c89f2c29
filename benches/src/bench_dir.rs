//! The directory of one measurement: everything is in it, and it is gone in the end.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use mcs_sandbox::remove_tree;
use tempfile::TempDir;

/// What was killed a moment ago may still write.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("mcs-benches-").tempdir().unwrap();
        // Scripts run as another user where this is root.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = remove_tree(self.path()) {
            if Instant::now() > end {
                eprintln!("{} stays: {error}", self.path().display());
                return;
            }
            sleep(Duration::from_millis(20));
        }
    }
}

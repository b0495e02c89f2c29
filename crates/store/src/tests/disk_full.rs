//! A full disk: a file system of a few pages in a mount namespace of the test's thread, which the threads of the store
//! inherit.

use std::{fs::File, io::Write as _, path::Path};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::*;

const PAGE: usize = 4096;

/// Size of the file system in bytes.
const SIZE: usize = 2 << 20;

/// Mounts a small file system on the directory, visible to this thread only.
fn mount_small(directory: &Path) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let options = format!("size={SIZE},mode=700");
    mount(Some("store"), directory, Some("tmpfs"), MsFlags::empty(), Some(&*options))
}

/// Fills the disk except for some pages.
fn fill(path: &Path, free_pages: usize) {
    let mut file = File::create(path).unwrap();
    let mut length = 0;
    while let Ok(()) = file.write_all(&[1; PAGE]) {
        length += PAGE;
    }
    // The last write may have been cut.
    file.set_len(length.saturating_sub(free_pages * PAGE) as u64).unwrap();
}

/// Store on a small file system.
struct SmallDisk {
    fixture: StoreFixture,
}

/// Unmounts the file system, so that the directory can be removed.
impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(self.fixture.directory.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// Mounts the file system, or reports that the test is skipped.
fn small_disk(test: &str) -> Option<SmallDisk> {
    let fixture = StoreFixture::new();
    match mount_small(fixture.directory.path()) {
        Ok(()) => Some(SmallDisk { fixture }),
        Err(error) => {
            mcs_testing::report_skipped(test, &format!("cannot mount a file system: {error}"));
            None
        }
    }
}

#[test]
fn store_survives_a_full_disk_at_each_write() {
    let Some(disk) = small_disk("store_survives_a_full_disk_at_each_write") else { return };
    let fixture = &disk.fixture;
    let ballast = fixture.directory.path().join("ballast");
    let mut failures = 0;
    for free_pages in 0..60 {
        let store = fixture.open();
        put_not_clean(&store, 0).unwrap();
        fill(&ballast, free_pages);
        // Each needs a page or more, and one transaction.
        let writes: Vec<_> = (1..=10)
            .map(|number| {
                put(&store, RecordKind::Media, number);
                let name = key(RecordKind::NotClean, number).name;
                let long = value(number).repeat(20);
                (number, long.clone(), store.put_not_clean(name, EXPIRY, &long).unwrap())
            })
            .collect();
        let is_done = || {
            let counters = store.counters();
            counters.failed_writes >= 3 || counters.entries >= 11
        };
        wait_until(is_done);
        let is_failing = store.counters().failed_writes > 0;
        failures += usize::from(is_failing);
        // Reads continue.
        assert_eq!(get(&store, key(RecordKind::NotClean, 0)), Some(value(0)));
        fs::remove_file(&ballast).unwrap();
        for (number, long, write) in writes {
            wait(write).unwrap_or_else(|error| panic!("{free_pages} pages free: {error}"));
            assert_eq!(get(&store, key(RecordKind::NotClean, number)), Some(long));
        }
        assert_eq!(get(&store, key(RecordKind::NotClean, 0)), Some(value(0)));
        assert_eq!(store.counters().replacements, 0);
        drop(store);
        let store = fixture.open();
        assert_eq!(get(&store, key(RecordKind::NotClean, 10)), Some(value(10).repeat(20)));
        wait(store.clear()).unwrap();
        drop(store);
        for file in fixture.files() {
            fs::remove_file(fixture.directory.path().join(file)).unwrap();
        }
        if !is_failing && free_pages > 0 {
            break;
        }
    }
    println!("{failures} numbers of free pages are too few");
    assert!(failures > 3, "{failures}");
}

#[test]
fn store_on_a_full_disk_is_refused_and_kept() {
    let Some(disk) = small_disk("store_on_a_full_disk_is_refused_and_kept") else { return };
    let fixture = &disk.fixture;
    let store = fixture.open();
    put_not_clean(&store, 1).unwrap();
    drop(store);
    let ballast = fixture.directory.path().join("ballast");
    fill(&ballast, 0);
    let error = fixture.try_open().err().unwrap();
    assert!(matches!(error, StoreError::Database { .. }), "{error:?}");
    fs::remove_file(&ballast).unwrap();
    let store = fixture.open();
    assert_eq!(get(&store, key(RecordKind::NotClean, 1)), Some(value(1)));
}

/// Closing gives up records that cannot be written, instead of waiting for space.
#[test]
fn closing_on_a_full_disk_ends() {
    let Some(disk) = small_disk("closing_on_a_full_disk_ends") else { return };
    let fixture = &disk.fixture;
    let store = fixture.open();
    put_not_clean(&store, 0).unwrap();
    fill(&fixture.directory.path().join("ballast"), 0);
    let name = key(RecordKind::NotClean, 1).name;
    let write = store.put_not_clean(name, EXPIRY, &vec![1; 60_000]).unwrap();
    wait_until(|| store.counters().failed_writes > 0);
    store.close();
    assert_eq!(wait(write), Err(NotDurable));
    assert_eq!(store.counters().dropped_writes, 1);
}

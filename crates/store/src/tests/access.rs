//! Files that cannot be used because of their type, owner or mode; and the lock.

use std::{
    fs::Permissions,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
};

use nix::unistd::geteuid;

use super::*;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Returns the error of opening the store, which must leave the files as they are.
fn refusal(fixture: &StoreFixture) -> StoreError {
    let before = fixture.files();
    let error = fixture.try_open().err().expect("the store is refused");
    let mut after = fixture.files();
    after.retain(|name| name != "store.db.lock" || before.contains(name));
    assert_eq!(after, before);
    println!("{error}");
    error
}

#[test]
fn files_are_for_this_user_only() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    put_not_clean(&store, 1).unwrap();
    let expected = ["store.db", "store.db-shm", "store.db-wal", "store.db.lock"];
    assert_eq!(fixture.files(), expected);
    for name in expected {
        assert_eq!(mode(&fixture.directory.path().join(name)), 0o600, "{name}");
    }
}

#[test]
fn paths_without_a_directory_are_refused() {
    let fixture = StoreFixture::new();
    let open = |path: &Path| FileStore::open(path, secret(), fixture.settings()).err().unwrap();
    let below = |path: &str| fixture.directory.path().join(path);
    fs::write(below("file"), "").unwrap();
    assert!(matches!(open(&below("missing/store.db")), StoreError::Directory { .. }));
    assert!(matches!(open(&below("file/store.db")), StoreError::NotADirectory { .. }));
    assert!(matches!(open(Path::new("/")), StoreError::NoFileName { .. }));
    assert!(matches!(open(Path::new("")), StoreError::NoFileName { .. }));
}

#[test]
fn directories_that_others_can_write_are_refused() {
    let fixture = StoreFixture::new();
    for mode in [0o770, 0o702, 0o1777] {
        set_mode(fixture.directory.path(), mode);
        assert!(matches!(refusal(&fixture), StoreError::WritableDirectory { .. }), "{mode:o}");
    }
    for mode in [0o700, 0o755, 0o750] {
        set_mode(fixture.directory.path(), mode);
        fixture.open();
    }
}

#[test]
fn files_that_others_can_use_are_refused() {
    let fixture = StoreFixture::new();
    drop(fixture.open());
    for name in ["", ".lock"] {
        for mode in [0o640, 0o604, 0o620, 0o601] {
            set_mode(&fixture.with_suffix(name), mode);
            let error = refusal(&fixture);
            assert!(matches!(error, StoreError::FileMode { mode: found, .. } if found == mode));
        }
        set_mode(&fixture.with_suffix(name), 0o600);
    }
    fixture.open();
}

#[test]
fn other_types_of_files_are_refused() {
    for name in ["", ".lock"] {
        let fixture = StoreFixture::new();
        let path = fixture.with_suffix(name);
        let target = fixture.directory.path().join("target");
        fs::write(&target, "").unwrap();
        symlink(&target, &path).unwrap();
        assert!(matches!(refusal(&fixture), StoreError::SymbolicLink { .. }));
        fs::remove_file(&target).unwrap();
        assert!(matches!(refusal(&fixture), StoreError::SymbolicLink { .. }));
        assert!(!target.exists());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(refusal(&fixture), StoreError::NotRegular { .. }));
        fs::remove_dir(&path).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(refusal(&fixture), StoreError::NotRegular { .. }));
    }
}

/// A directory may be reached through links, as systemd's `StateDirectory` is with a dynamic user.
#[test]
fn directories_may_be_links() {
    let fixture = StoreFixture::new();
    let link = fixture.directory.path().join("link");
    let state = fixture.directory.path().join("state");
    fs::create_dir(&state).unwrap();
    symlink(&state, &link).unwrap();
    let (store, _) = FileStore::open(&link.join("store.db"), secret(), fixture.settings()).unwrap();
    put_not_clean(&store, 1).unwrap();
    assert!(state.join("store.db").exists());
}

#[test]
fn files_of_other_users_are_refused() {
    if !geteuid().is_root() {
        let reason = "needs root";
        mcs_testing::report_skipped("files_of_other_users_are_refused", reason);
        return;
    }
    let fixture = StoreFixture::new();
    drop(fixture.open());
    for name in ["", ".lock"] {
        chown(fixture.with_suffix(name), Some(12345), None).unwrap();
        let error = refusal(&fixture);
        assert!(matches!(error, StoreError::FileOwner { owner: 12345, user: 0, .. }), "{error}");
        chown(fixture.with_suffix(name), Some(0), None).unwrap();
    }
    chown(fixture.directory.path(), Some(12345), None).unwrap();
    assert!(matches!(refusal(&fixture), StoreError::DirectoryOwner { owner: 12345, .. }));
}

#[test]
fn second_user_of_a_store_is_refused() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    put_not_clean(&store, 1).unwrap();
    let error = refusal(&fixture);
    let pid = std::process::id();
    assert!(matches!(error, StoreError::Locked { holder: Some(holder), .. } if holder == pid));
    assert!(error.to_string().contains(&format!("PID {pid};")), "{error}");
    // The lock does not depend on the content of its file.
    fs::write(fixture.with_suffix(".lock"), "no number").unwrap();
    assert!(matches!(refusal(&fixture), StoreError::Locked { holder: None, .. }));
    put_not_clean(&store, 2).unwrap();
    drop(store);
    let store = fixture.open();
    assert_eq!(get(&store, key(RecordKind::NotClean, 2)), Some(value(2)));
}

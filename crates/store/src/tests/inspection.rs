//! Examination of a file that another process may have open.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::{DamageCause, StoreInspection};

const LIMIT: Duration = Duration::from_secs(60);

impl StoreFixture {
    fn inspect(&self) -> Result<StoreInspection, StoreError> {
        StoreInspection::of_file(&self.path(), LIMIT)
    }
}

#[test]
fn closed_store_is_read_without_creating_files() {
    let fixture = StoreFixture::new();
    assert_eq!(fixture.inspect().unwrap(), StoreInspection::Missing);
    assert_eq!(fixture.files(), Vec::<String>::new());
    let store = fixture.open();
    for number in 0..20 {
        put(&store, RecordKind::NotClean, number);
    }
    drop(store);
    let (files, bytes) = (fixture.files(), fs::read(fixture.path()).unwrap());
    let size = bytes.len() as u64;
    let expected = StoreInspection::Good { entries: 20, size, is_open: false, is_checked: true };
    assert_eq!(fixture.inspect().unwrap(), expected);
    assert_eq!((fixture.files(), fs::read(fixture.path()).unwrap()), (files, bytes));
    fs::write(fixture.path(), "").unwrap();
    let expected = StoreInspection::Good { entries: 0, size: 0, is_open: false, is_checked: true };
    assert_eq!(fixture.inspect().unwrap(), expected);
}

#[test]
fn open_store_is_read_with_its_log_and_stays_usable() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for number in 0..20 {
        put_not_clean(&store, number).unwrap();
        let inspection = fixture.inspect().unwrap();
        let StoreInspection::Good { entries, is_open: true, is_checked: true, .. } = inspection
        else {
            panic!("{inspection:?}")
        };
        assert_eq!(entries, number + 1);
    }
    assert_eq!(get(&store, key(RecordKind::NotClean, 7)), Some(value(7)));
}

#[test]
fn time_limit_ends_the_check() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for number in 0..2000 {
        put(&store, RecordKind::NotClean, number);
    }
    drop(store);
    // Interrupts come from the first moment on. One that comes between the statements has no effect.
    let inspect = |_| StoreInspection::of_file(&fixture.path(), Duration::ZERO).unwrap();
    let mut inspections = (0..1000).map(inspect);
    let ended = |inspection| match inspection {
        StoreInspection::Good { entries: 2000, is_checked, .. } => !is_checked,
        other => panic!("{other:?}"),
    };
    assert!(inspections.any(ended));
}

#[test]
fn damaged_and_foreign_files_are_named() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for number in 0..200 {
        put(&store, RecordKind::NotClean, number);
    }
    drop(store);
    let bytes = fs::read(fixture.path()).unwrap();
    let mut damaged = bytes.clone();
    // All pages but the first, which has the schema.
    damaged[4096..].fill(0x55);
    fs::write(fixture.path(), &damaged).unwrap();
    let inspection = fixture.inspect().unwrap();
    assert!(
        matches!(inspection, StoreInspection::Unusable(DamageCause::Damaged(_))),
        "{inspection:?}"
    );
    fs::write(fixture.path(), "no database".repeat(1000)).unwrap();
    let inspection = fixture.inspect().unwrap();
    assert!(
        matches!(inspection, StoreInspection::Unusable(DamageCause::Damaged(_))),
        "{inspection:?}"
    );
    for (pragma, expected) in [
        ("application_id", DamageCause::OtherApplication(7)),
        ("user_version", DamageCause::OtherVersion(7)),
    ] {
        fs::write(fixture.path(), &bytes).unwrap();
        let connection = Connection::open(fixture.path()).unwrap();
        connection.pragma_update(None, pragma, 7).unwrap();
        drop(connection);
        assert_eq!(fixture.inspect().unwrap(), StoreInspection::Unusable(expected));
    }
}

#[test]
fn files_that_the_service_rejects_are_rejected() {
    let fixture = StoreFixture::new();
    drop(fixture.open());
    let mode = |mode| fs::set_permissions(fixture.path(), fs::Permissions::from_mode(mode));
    mode(0o644).unwrap();
    assert!(matches!(fixture.inspect(), Err(StoreError::FileMode { mode: 0o644, .. })));
    fs::remove_file(fixture.path()).unwrap();
    fs::create_dir(fixture.path()).unwrap();
    assert!(matches!(fixture.inspect(), Err(StoreError::NotRegular { .. })));
    let absent = fixture.directory.path().join("absent/store.db");
    assert!(matches!(StoreInspection::of_file(&absent, LIMIT), Err(StoreError::Directory { .. })));
}

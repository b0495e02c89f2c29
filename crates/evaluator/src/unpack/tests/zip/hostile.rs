//! Damaged files and random changes.

use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*};

use super::{
    super::{collect, payload},
    samples::samples,
    writer::{ZipEntrySpec, ZipWriter, stored_zip},
};
use crate::unpack::tests::ContainerSample;

/// Samples that are small enough for many runs.
static SMALL: LazyLock<Vec<ContainerSample>> =
    LazyLock::new(|| samples().into_iter().filter(|sample| sample.bytes.len() < 1000).collect());

#[test]
fn truncated_files_are_examined_as_far_as_they_are() {
    let stored = stored_zip(&[("first.txt", &payload()), ("second.txt", b"second")]);
    for length in 0..stored.len() {
        let collected = collect(&stored[..length]);
        assert_eq!(collected.has_payload(), length >= 39 + 68, "{length}");
        assert!(length < 4 || !collected.notes.is_empty(), "{length}");
    }
    for sample in &*SMALL {
        for length in (0..sample.bytes.len()).step_by(7) {
            collect(&sample.bytes[..length]);
        }
    }
}

#[test]
fn payload_beside_damage_is_found() {
    let damaged = |change: fn(&mut Vec<u8>)| {
        let mut entry = ZipEntrySpec::deflated("damaged.txt", &[b'a'; 500]);
        change(&mut entry.data);
        let entries = [entry.clone(), ZipEntrySpec::stored("payload.txt", &payload()), entry];
        assert!(collect(&ZipWriter::new(entries).build()).has_payload());
    };
    damaged(|data| data.fill(0xff));
    damaged(|data| data.truncate(3));
    damaged(Vec::clear);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn accepts_changed_files(
        index in any::<prop::sample::Index>(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = index.get(&SMALL).bytes.clone();
        for (index, value) in edits {
            let position = index.index(bytes.len());
            bytes[position] = value;
        }
        let collected = collect(&bytes);
        prop_assert!(collected.notes.iter().all(|note| !note.reason.contains("panic")), "{collected:?}");
        prop_assert_includes_other_reader(&bytes)?;
        collect(&bytes[..cut.index(bytes.len())]);
    }
}

/// Checks that the objects include the stored files that another reader of zip finds.
fn prop_assert_includes_other_reader(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(archive) = rawzip::ZipArchive::from_slice(bytes) else { return Ok(()) };
    let collected = collect(bytes);
    for record in archive.entries().flatten() {
        let Ok(entry) = archive.get_entry(record.wayfinder()) else { continue };
        let is_stored = record.compression_method() == rawzip::CompressionMethod::STORE;
        let is_file = !record.file_path().as_ref().ends_with(b"/") && !entry.data().is_empty();
        if is_stored && is_file && collected.notes.is_empty() {
            let found = collected.objects.iter().any(|(_, file)| file == entry.data());
            prop_assert!(found, "{collected:?}");
        }
    }
    Ok(())
}

//! What ordinary programs write has no notes.

use super::{
    super::collect,
    writer::{ZipEntrySpec, ZipWriter, deflate, stored_zip, zip},
};

#[track_caller]
fn assert_clean(file: &[u8], paths: &[&str]) {
    let collected = collect(file);
    assert!(collected.notes.is_empty(), "{collected:?}");
    assert_eq!(collected.paths(), paths);
}

fn text() -> ZipEntrySpec {
    ZipEntrySpec::deflated("a.txt", b"text")
}

#[test]
fn archives_of_common_programs_are_clean() {
    // Android's signing block is between the entries and the directory.
    let block = [&[7; 300][..], b"APK Sig Block 42"].concat();
    let apk = ZipWriter { before_directory: block, ..ZipWriter::new([text()]) };
    assert_clean(&apk.build(), &["a.txt"]);
    // zipalign pads extra fields with zeros.
    assert_clean(
        &ZipWriter::new([text().local(|fields| fields.extra = vec![0; 3])]).build(),
        &["a.txt"],
    );
    // Java's jar marks the first local header only in the directory, and streams.
    let java = text().streamed(true).central(|fields| fields.extra = vec![0xfe, 0xca, 0, 0]);
    assert_clean(&ZipWriter::new([java]).build(), &["a.txt"]);
    // Android Studio fills gaps with entries without name and data.
    let filler =
        ZipEntrySpec::stored("", b"").local(|fields| fields.extra = vec![0; 40]).unlisted();
    assert_clean(&ZipWriter::new([text(), filler.clone(), text()]).build(), &["a.txt", "a.txt"]);
    let named = filler.local(|fields| fields.name = b"virtual".to_vec());
    assert_clean(&ZipWriter::new([named, text()]).build(), &["a.txt"]);
    // Flags of names and of compression levels differ between the headers.
    let flags = text().local(|fields| fields.flags = 6).central(|fields| fields.flags = 1 << 11);
    assert_clean(&ZipWriter::new([flags]).build(), &["a.txt"]);
}

/// References are decoded in the archive as well, which is no archive then.
#[test]
fn references_in_stored_files_cause_no_notes() {
    let page = "<p>&#74;&#x61;&#118;a &colon; &Tab;</p>".repeat(100);
    let entries =
        (0..20).map(|number| ZipEntrySpec::stored(format!("{number}.html"), page.as_bytes()));
    let collected = collect(&ZipWriter::new(entries).build());
    assert!(collected.notes.is_empty(), "{collected:?}");
}

#[test]
fn directories_are_no_objects() {
    let directory = ZipEntrySpec::stored("a/", b"");
    let deflated = ZipEntrySpec::packed("b/", 8, deflate(b""), b"");
    let streamed = ZipEntrySpec::deflated("c/", b"").streamed(true);
    let stored = ZipEntrySpec::stored("d/", b"").streamed(true);
    let without_signature = ZipEntrySpec::stored("e/", b"").streamed(false);
    let method_differs = streamed.clone().central(|fields| {
        (fields.method, fields.compressed) = (0, 0);
    });
    let file = ZipEntrySpec::stored("a/empty.txt", b"");
    let entries = [directory, deflated, streamed, stored, without_signature, method_differs, file];
    assert_clean(&ZipWriter::new(entries).build(), &["a/empty.txt"]);
    assert_clean(&ZipWriter::default().build(), &[]);
}

#[test]
fn nested_archives_are_not_swept() {
    let inner = stored_zip(&[("inner.txt", b"inner")]);
    let outer =
        [&zip(&[])[..0], &stored_zip(&[("a.zip", &inner), ("b.zip", &zip(&[("c", b"c")]))])];
    assert_clean(&outer.concat(), &["a.zip", "a.zip > inner.txt", "b.zip", "b.zip > c"]);
    let streamed = ZipEntrySpec::stored("a.zip", &inner).streamed(true);
    assert_clean(&ZipWriter::new([streamed]).build(), &["a.zip", "a.zip > inner.txt"]);
    // A stored archive without a directory of its own around it.
    let comment =
        ZipWriter { comment: b"PK\x05\x06 is a signature".to_vec(), ..ZipWriter::new([text()]) };
    assert_clean(&comment.build(), &["a.txt"]);
}

#[test]
fn more_than_65_535_entries_are_counted_modulo_65_536() {
    let directories = (0..65_600).map(|i| ZipEntrySpec::stored(format!("{i}/"), b""));
    assert_clean(&ZipWriter::new(directories).build(), &[]);
}

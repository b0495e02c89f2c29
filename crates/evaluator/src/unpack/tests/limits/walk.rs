//! Order of objects, findings and notes.

use super::container::{PanickingVisitor, Visited, container, nested, walk, walk_until, walk_with};
use crate::{
    report::NoteKind,
    unpack::{UnpackSettings, kind::Kind},
};

fn settings() -> UnpackSettings {
    UnpackSettings::default()
}

#[test]
fn objects_have_their_path_depth_and_container() {
    let inner = container(b'T', &[(b's', b"a"), (b's', b"b")]);
    let media = container(b'Z', &[(b's', &inner), (b's', b"c")]);
    let walked = walk(&media, &settings());
    let object = |path: &str, bytes: &[u8], depth, container| Visited {
        path: path.to_owned(),
        bytes: bytes.to_vec(),
        depth,
        container,
        is_repeated: false,
    };
    let expected = [
        object("", &media, 0, None),
        object("1", &inner, 1, Some(Kind::Zip)),
        object("1 > 1", b"a", 2, Some(Kind::Tar)),
        object("1 > 2", b"b", 2, Some(Kind::Tar)),
        object("2", b"c", 1, Some(Kind::Zip)),
    ];
    assert_eq!(walked.objects, expected);
}

#[test]
fn nothing_is_unpacked_if_disabled() {
    let media = container(b'Z', &[(b's', b"a"), (b'n', b"encrypted")]);
    let walked = walk(&media, &UnpackSettings { enabled: false, ..settings() });
    assert_eq!((walked.count(), walked.notes.len()), (0, 0));
}

#[test]
fn walk_ends_at_the_first_finding() {
    let inner = container(b'Z', &[(b's', b"a"), (b's', b"found"), (b's', b"b")]);
    for method in [b's', b'd'] {
        let media =
            container(b'Z', &[(b'n', b"encrypted"), (method, &inner), (b's', b"c"), (b'e', b"d")]);
        let walked = walk_until(&media, &settings(), Some(b"found"));
        assert_eq!(walked.objects.last().unwrap().bytes, b"found");
        assert_eq!(walked.count(), 3);
        assert_eq!(walked.note().0, NoteKind::Encrypted);
        assert_eq!(walk_until(&media, &settings(), Some(&media)).count(), 0);
    }
}

#[test]
fn findings_after_notes_are_reached() {
    let defects: [(u8, &[u8]); 6] = [
        (b'e', b"a"),
        (b'm', b"a"),
        (b'p', b"a"),
        (b'n', b"a"),
        (b's', b"Z0u\0\0\0\0"),
        (b'z', b"200"),
    ];
    let settings = UnpackSettings { max_file: 100, ..settings() };
    for (method, item) in defects {
        let media = container(b'Z', &[(method, item), (b's', b"found"), (b's', b"b")]);
        let walked = walk_until(&media, &settings, Some(b"found"));
        assert_eq!(walked.objects.last().unwrap().bytes, b"found", "{}", method.escape_ascii());
        assert_eq!(walked.notes.len(), 1);
    }
}

#[test]
fn start_of_a_damaged_file_is_examined() {
    for (method, kind) in
        [(b'e', NoteKind::Unreadable), (b'm', NoteKind::Limit), (b'p', NoteKind::Unreadable)]
    {
        let walked = walk(&container(b'Z', &[(method, b"start"), (b's', b"next")]), &settings());
        assert_eq!(walked.texts(), ["start", "next"]);
        assert_eq!((walked.note().0, walked.note().2), (kind, "1".to_owned()));
    }
}

#[test]
fn panic_of_a_format_is_unreadable() {
    let panicking = container(b'T', &[(b's', b"before"), (b'u', b""), (b's', b"after")]);
    let media = container(
        b'Z',
        &[(b's', &panicking), (b'd', &nested(b'Z', 2, b'd', &panicking)), (b's', b"last")],
    );
    let walked = walk(&media, &settings());
    assert_eq!(walked.note(), (NoteKind::Unreadable, "the tar decoder panicked", "1".to_owned()));
    let texts = walked.texts();
    assert!(texts.contains(&"before".to_owned()) && texts.contains(&"last".to_owned()));
    // The path and depth are those of the container again.
    let last = walked.objects.last().unwrap();
    assert_eq!((last.path.as_str(), last.depth, last.container), ("3", 1, Some(Kind::Zip)));
}

#[test]
fn panic_on_the_media_file_is_unreadable() {
    let walked = walk(&container(b'Z', &[(b's', b"a"), (b'u', b"")]), &settings());
    assert_eq!(walked.texts(), ["a"]);
    assert_eq!(walked.note(), (NoteKind::Unreadable, "the zip decoder panicked", String::new()));
}

#[test]
fn one_note_of_each_kind_is_kept() {
    let items: [(u8, &[u8]); 5] =
        [(b'n', b"first"), (b'e', b"a"), (b'n', b"second"), (b'm', b"b"), (b'e', b"c")];
    let walked = walk(&container(b'Z', &items), &settings());
    let notes: Vec<_> =
        walked.notes.iter().map(|note| (note.kind, note.path.join(" > "))).collect();
    let path = |path: &str| path.to_owned();
    assert_eq!(
        notes,
        [
            (NoteKind::Encrypted, path("")),
            (NoteKind::Unreadable, path("2")),
            (NoteKind::Limit, path("4"))
        ]
    );
    assert_eq!(walked.notes[0].reason, "first");
}

#[test]
fn repeated_containers_are_unpacked_once() {
    let inner = container(b'Z', &[(b's', b"a")]);
    let media = container(b'Z', &[(b's', &inner), (b'd', &inner), (b's', b"a")]);
    let walked = walk(&media, &settings());
    let objects: Vec<_> =
        walked.objects.iter().map(|object| (object.path.as_str(), object.is_repeated)).collect();
    assert_eq!(objects, [("", false), ("1", false), ("1 > 1", false), ("2", true), ("3", true)]);
}

#[test]
fn containers_are_searched_as_text() {
    let walked = walk(b"some text", &settings());
    assert_eq!(
        (walked.texts(), walked.objects[1].container),
        (vec!["content".to_owned()], Some(Kind::Text))
    );
    let walked = walk(&container(b'Z', &[(b's', b"in zip text")]), &settings());
    assert_eq!(walked.texts(), ["in zip text", "content", "content"]);
    assert_eq!(walked.objects[2].path, "1 > in text");
    assert!(walked.objects[3].is_repeated);
}

#[test]
fn panic_of_the_visitor_is_no_note() {
    for method in [b's', b'd'] {
        let media = nested(b'Z', 2, method, b"a");
        let result = std::panic::catch_unwind(|| walk_with(&media, &mut PanickingVisitor));
        assert_eq!(result.unwrap_err().downcast_ref(), Some(&"visitor"));
    }
}

#[test]
fn names_in_notes_are_cut() {
    let media = nested(b'Z', 80, b's', b"a");
    let walked = walk(&media, &UnpackSettings { max_depth: 70, ..settings() });
    // 200 names of one character are kept; names of 60 characters are tested in `name`.
    assert_eq!(walked.note().2, vec!["1"; 71].join(" > "));
    let long = container(b'Z', &[(b'l', b"a")]);
    let walked = walk(&long, &settings());
    assert_eq!(walked.objects[1].path, format!("…{}.exe", "x".repeat(55)));
    assert_eq!(walked.note().2, walked.objects[1].path);
}

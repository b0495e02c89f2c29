//! Each limit at its edge, and beyond.

use std::io::{self, Read};

use super::container::{QUINE, container, nested, walk};
use crate::{
    report::NoteKind,
    unpack::{
        UnpackSettings,
        bounded_read::read_up_to,
        budget::{MAX_DEPTH, MAX_FILE, MAX_FILES, MAX_TOTAL},
    },
};

fn settings() -> UnpackSettings {
    UnpackSettings::default()
}

#[test]
fn number_of_objects_is_limited() {
    for method in [b's', b'd'] {
        let media = container(b'Z', &[(method, b"a"), (method, b"b"), (method, b"c")]);
        let walked = walk(&media, &UnpackSettings { max_files: 3, ..settings() });
        assert_eq!((walked.count(), walked.notes.len()), (3, 0));
        let walked = walk(&media, &UnpackSettings { max_files: 2, ..settings() });
        assert_eq!(walked.texts(), ["a", "b"]);
        assert_eq!(walked.note(), (NoteKind::Limit, MAX_FILES, "3".to_owned()));
    }
    let walked =
        walk(&container(b'Z', &[(b's', b"a")]), &UnpackSettings { max_files: 0, ..settings() });
    assert_eq!(walked.count(), 0);
    assert_eq!(walked.note().1, MAX_FILES);
}

#[test]
fn repeated_objects_count() {
    let media = container(b'Z', &[(b's', &b"a"[..]); 5]);
    let walked = walk(&media, &UnpackSettings { max_files: 4, ..settings() });
    assert_eq!(walked.count(), 4);
    assert_eq!(walked.note().1, MAX_FILES);
    let walked = walk(&media, &UnpackSettings { max_total: 4, ..settings() });
    assert_eq!(walked.count(), 4);
    assert_eq!(walked.note().1, MAX_TOTAL);
}

#[test]
fn total_is_limited() {
    let media = |method| container(b'Z', &[(method, b"abcde"), (method, b"fghij"), (b's', b"k")]);
    for (method, beyond) in [(b's', vec!["abcde"]), (b'd', vec!["abcde", "fghi"])] {
        let walked = walk(&media(method), &UnpackSettings { max_total: 11, ..settings() });
        assert_eq!((walked.count(), walked.notes.len()), (3, 0));
        let walked = walk(&media(method), &UnpackSettings { max_total: 9, ..settings() });
        assert_eq!(walked.texts(), beyond);
        assert_eq!(walked.note(), (NoteKind::Limit, MAX_TOTAL, "2".to_owned()));
    }
}

#[test]
fn objects_of_inner_containers_count_for_the_total() {
    let inner = container(b'Z', &[(b's', b"abcde")]);
    let media = container(b'Z', &[(b'd', &inner)]);
    let total = inner.len() as u64 + 5;
    assert!(walk(&media, &UnpackSettings { max_total: total, ..settings() }).notes.is_empty());
    let walked = walk(&media, &UnpackSettings { max_total: total - 1, ..settings() });
    assert_eq!(walked.texts(), [String::from_utf8(inner).unwrap()]);
    assert_eq!(walked.note(), (NoteKind::Limit, MAX_TOTAL, "1 > 1".to_owned()));
}

#[test]
fn object_in_memory_is_limited() {
    let media = container(b'Z', &[(b'd', b"abcde"), (b'd', b"f")]);
    let walked = walk(&media, &UnpackSettings { max_file: 5, ..settings() });
    assert_eq!((walked.count(), walked.notes.len()), (2, 0));
    // The start of the object and the other objects are examined.
    let walked = walk(
        &container(b'Z', &[(b'z', b"6"), (b'd', b"f")]),
        &UnpackSettings { max_file: 5, ..settings() },
    );
    assert_eq!(walked.texts(), ["\0\0\0\0\0", "f"]);
    assert_eq!(walked.note(), (NoteKind::Limit, MAX_FILE, "1".to_owned()));
}

#[test]
fn buffers_take_no_more_than_the_limit() {
    for (available, limit) in
        [(0, 0), (5, 5), (100_000, 70_001), (70_001, 70_001), (70_001, 100_000)]
    {
        let mut bytes = Vec::new();
        read_up_to(io::repeat(1).take(available), limit, &mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, available.min(limit as u64));
        assert!(bytes.capacity() <= limit, "{}", bytes.capacity());
    }
}

#[test]
fn slices_take_no_memory() {
    let media = container(b'Z', &[(b's', &[b'a'; 100])]);
    let walked = walk(&media, &UnpackSettings { max_file: 5, ..settings() });
    assert_eq!((walked.count(), walked.notes.len()), (1, 0));
}

#[test]
fn endless_streams_end() {
    let media = container(b'Z', &[(b'z', b"1000000000000"), (b's', b"a")]);
    let walked = walk(&media, &UnpackSettings { max_file: 1000, ..settings() });
    assert_eq!(walked.objects[1].bytes.len(), 1000);
    assert_eq!(walked.objects[2].bytes, b"a");
    let walked = walk(&media, &UnpackSettings { max_total: 1000, ..settings() });
    assert_eq!(walked.objects[1].bytes.len(), 1000);
    assert_eq!((walked.count(), walked.note().1), (1, MAX_TOTAL));
}

#[test]
fn objects_of_a_path_take_twice_the_memory_of_a_file() {
    // Each container is decoded, and contains the next one: all are in memory at the same time.
    let filled = |inner: &[u8]| {
        let mut bytes = container(b'Z', &[(b'd', inner)]);
        bytes.resize(bytes.len().max(100), b' ');
        bytes
    };
    let innermost = [b'x'; 60];
    let second = filled(&innermost);
    let first = filled(&second);
    let media = container(b'Z', &[(b'd', &first)]);
    let sum = (first.len() + second.len() + innermost.len()) as u64;
    let walked = walk(&media, &UnpackSettings { max_file: sum.div_ceil(2), ..settings() });
    assert!(walked.notes.is_empty(), "{:?}", walked.notes);
    assert!(walked.texts().contains(&"x".repeat(60)));
    let walked = walk(&media, &UnpackSettings { max_file: (sum - 1) / 2, ..settings() });
    assert_eq!(walked.note(), (NoteKind::Limit, MAX_FILE, "1 > 1 > 1".to_owned()));
    assert!(!walked.texts().contains(&"x".repeat(60)) && walked.count() == 3);
}

#[test]
fn memory_is_released_after_an_object() {
    let items = [
        (b'd', &[b'x'; 50][..]),
        (b't', &[b'y'; 50]),
        (b'p', b"Z0u\0\0\0\0"),
        (b'd', b"Z0u\0\0\0\0"),
    ];
    let media = container(b'Z', &items.repeat(20));
    let walked = walk(&media, &UnpackSettings { max_file: 50, ..settings() });
    assert!(
        walked.notes.iter().all(|note| note.kind == NoteKind::Unreadable),
        "{:?}",
        walked.notes
    );
    assert_eq!(walked.objects.iter().filter(|object| object.bytes == [b'x'; 50]).count(), 20);
    assert_eq!(walked.objects.iter().filter(|object| object.bytes == [b'y'; 50]).count(), 40);
}

#[test]
fn decoded_bytes_take_memory_while_more_is_decoded() {
    let inner = container(b'Z', &[(b't', &[b'y'; 13])]);
    let media = container(b'Z', &[(b'd', &inner)]);
    // 20 bytes of the container, and twice 13.
    let walked = walk(&media, &UnpackSettings { max_file: 23, ..settings() });
    assert_eq!((walked.count(), walked.notes.len()), (3, 0));
    let walked = walk(&media, &UnpackSettings { max_file: 22, ..settings() });
    assert_eq!(walked.note(), (NoteKind::Limit, MAX_FILE, "1 > then".to_owned()));
    assert_eq!(walked.objects.last().unwrap().bytes, [b'y'; 11]);
}

#[test]
fn each_of_20_depths_is_limited() {
    for max_depth in 0..20 {
        for method in [b's', b'd'] {
            let settings = UnpackSettings { max_depth, ..settings() };
            let walked = walk(&nested(b'Z', max_depth, method, b"object"), &settings);
            assert_eq!((walked.count(), walked.notes.len()), (max_depth as usize, 0));
            let last = walked.objects.last().unwrap();
            assert_eq!(last.depth, max_depth);
            assert!(max_depth == 0 || last.bytes == b"object");

            let walked = walk(&nested(b'Z', max_depth + 1, method, b"object"), &settings);
            assert_eq!(walked.count(), max_depth as usize);
            let path = vec!["1"; max_depth as usize + 1].join(" > ");
            assert_eq!(walked.note(), (NoteKind::Limit, MAX_DEPTH, path));
        }
    }
}

#[test]
fn objects_beside_too_deep_ones_are_examined() {
    let deep = nested(b'Z', 3, b's', b"object");
    let media = container(b'Z', &[(b's', &deep), (b's', b"beside")]);
    let walked = walk(&media, &UnpackSettings { max_depth: 2, ..settings() });
    assert!(walked.texts().contains(&"beside".to_owned()));
    assert_eq!(walked.note().1, MAX_DEPTH);
}

#[test]
fn archive_in_a_stream_is_one_level() {
    let tar_in_gzip = |levels| {
        (0..levels).fold(b"object".to_vec(), |inner: Vec<u8>, _| {
            nested(b'G', 1, b'd', &nested(b'T', 1, b's', &inner))
        })
    };
    let settings = UnpackSettings { max_depth: 5, ..settings() };
    let walked = walk(&tar_in_gzip(5), &settings);
    assert!(walked.notes.is_empty(), "{walked:?}");
    assert_eq!(
        walked.objects.iter().map(|object| object.depth).collect::<Vec<_>>(),
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    );
    let walked = walk(&tar_in_gzip(6), &settings);
    assert_eq!(walked.note().1, MAX_DEPTH);
    assert!(!walked.texts().contains(&"object".to_owned()));
    // A stream in a stream, and another format in a stream, are levels.
    for inner in [b'G', b'Z'] {
        let media = |levels| nested(b'G', 1, b'd', &nested(inner, levels, b'd', b"object"));
        assert!(walk(&media(4), &settings).notes.is_empty());
        assert_eq!(walk(&media(5), &settings).note().1, MAX_DEPTH);
    }
}

#[test]
fn containers_that_contain_themselves_end() {
    let walked = walk(&QUINE, &settings());
    let repeated: Vec<_> = walked.objects.iter().map(|object| object.is_repeated).collect();
    assert_eq!(repeated, [false, false, true]);
    assert!(walked.notes.is_empty());
}

//! A format of containers for tests.
//!
//! A container is a letter, a digit and items. An item is a method (a letter), its length (4 bytes, big endian) and its
//! bytes.

use std::{
    io::{self, Read},
    ops::ControlFlow,
    sync::LazyLock,
};

use crate::{
    report::{Note, NoteKind},
    unpack::{
        UnpackSettings,
        embedded::SignatureSearch,
        kind::Kind,
        name::EntryName,
        object::{MediaObject, Visitor},
        unpacker::{Completeness, ContainerFormat, Selection, Unpacked, Unpacker, WalkEnd},
    },
};

/// The formats: containers as zip and tar, streams as gzip, and texts.
static SELECTION: Selection = Selection {
    kinds: &[Kind::Zip, Kind::Tar, Kind::Gzip, Kind::Text],
    format,
    signature: |_kind| None,
    search: || &SEARCH,
};

static SEARCH: LazyLock<SignatureSearch> = LazyLock::new(|| SignatureSearch::new(Vec::new()));

fn format(kind: Kind) -> ContainerFormat {
    let matches: fn(&[u8]) -> bool = match kind {
        Kind::Zip => |bytes| bytes.starts_with(b"Z0"),
        Kind::Tar => |bytes| bytes.starts_with(b"T0"),
        Kind::Gzip => |bytes| bytes.starts_with(b"G0"),
        Kind::Text => |bytes| bytes.ends_with(b"text"),
        _ => |_| false,
    };
    ContainerFormat { matches, unpack: if kind == Kind::Text { unpack_text } else { unpack } }
}

fn unpack_text(_bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    unpacker.slice(EntryName::label("in text"), b"content")
}

fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut rest = &bytes[2..];
    let mut number = 0;
    while let [method, a, b, c, d, after @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (item, after) = after.split_at(length.min(after.len()));
        rest = after;
        number += 1;
        unpack_item(*method, EntryName::file(format!("{number}")), item, unpacker)?;
    }
    Ok(())
}

/// Unpacks an item. Methods: `s`, a slice; `d`, decoded; `z`, zeros, their number in decimal; `e`, decoded with an error
/// at the end; `m`, needs too much memory; `p`, the decoder panics at the end; `u`, this function panics in an inner
/// container; `n`, a note; `t`, decoded, and decoded again while the bytes are kept; `l`, as `e`, with a long name; `q`, the media file [`QUINE`].
fn unpack_item(method: u8, name: EntryName, item: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    match method {
        b's' => return unpacker.slice(name, item),
        b'd' => _ = unpacker.decode(name, item)?,
        b'z' => {
            let length = str::from_utf8(item).unwrap().parse().unwrap();
            unpacker.decode(name, io::repeat(0).take(length))?;
        }
        b'e' => fail(name, item, io::ErrorKind::InvalidData, unpacker)?,
        b'm' => fail(name, item, io::ErrorKind::OutOfMemory, unpacker)?,
        b'p' => {
            let decoded = unpacker.decode(name, item.chain(Panicking))?;
            assert_eq!(decoded, Completeness::Incomplete);
        }
        b'u' => panic!("test"),
        b'n' => unpacker.note(NoteKind::Encrypted, String::from_utf8_lossy(item)),
        b't' => {
            let label = EntryName::label("then");
            unpacker.decode_then(name, item, |unpacker, bytes| {
                unpacker.decode(label, bytes).map(|_decoded| ())
            })?;
        }
        b'l' => {
            let name = EntryName::file("x".repeat(100) + ".exe");
            fail(name, item, io::ErrorKind::InvalidData, unpacker)?;
        }
        b'q' => return unpacker.slice(name, &QUINE),
        _ => {}
    }
    Ok(())
}

/// A container that contains itself.
pub(super) const QUINE: [u8; 7] = *b"Z0q\0\0\0\0";

fn fail(
    name: EntryName,
    item: &[u8],
    kind: io::ErrorKind,
    unpacker: &mut Unpacker<'_>,
) -> Result<(), WalkEnd> {
    let decoded = unpacker.decode(name, item.chain(Failing(kind)))?;
    assert_eq!(decoded, Completeness::Incomplete);
    Ok(())
}

struct Failing(io::ErrorKind);

impl Read for Failing {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(self.0, "test"))
    }
}

struct Panicking;

impl Read for Panicking {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        panic!("test")
    }
}

/// Returns a container. `kind`: `Z` for zip, `T` for tar, `G` for gzip. Items: a method and bytes.
pub(super) fn container(kind: u8, items: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![kind, b'0'];
    for (method, item) in items {
        bytes.push(*method);
        bytes.extend_from_slice(&u32::try_from(item.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(item);
    }
    bytes
}

/// Puts containers around an object.
pub(super) fn nested(kind: u8, levels: u32, method: u8, object: &[u8]) -> Vec<u8> {
    (0..levels).fold(object.to_vec(), |inner, _| container(kind, &[(method, &inner)]))
}

/// An object as the visitor receives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Visited {
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    pub(super) depth: u32,
    pub(super) container: Option<Kind>,
    pub(super) is_repeated: bool,
}

/// The objects and notes of a media file.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) objects: Vec<Visited>,
    pub(super) notes: Vec<Note>,
}

impl Walked {
    /// Returns the objects as text, the media file excluded.
    pub(super) fn texts(&self) -> Vec<String> {
        self.objects
            .iter()
            .skip(1)
            .map(|object| String::from_utf8_lossy(&object.bytes).into_owned())
            .collect()
    }

    /// Returns the number of objects, the media file excluded.
    pub(super) fn count(&self) -> usize {
        self.objects.len() - 1
    }

    /// Returns the only note.
    pub(super) fn note(&self) -> (NoteKind, &str, String) {
        let [note] = self.notes.as_slice() else { panic!("{:?}", self.notes) };
        (note.kind, &note.reason, note.path.join(" > "))
    }
}

/// Fails if it receives an object of a container.
pub(super) struct PanickingVisitor;

impl Visitor for PanickingVisitor {
    fn visit(&mut self, object: &MediaObject<'_>) -> ControlFlow<()> {
        assert!(object.depth == 0, "visitor");
        ControlFlow::Continue(())
    }
}

/// Walks through a media file with a visitor.
pub(super) fn walk_with(media: &[u8], visitor: &mut dyn Visitor) -> Vec<Note> {
    let mut unpacker = Unpacker::new(&UnpackSettings::default(), &SELECTION, visitor);
    unpacker.media(media);
    unpacker.into_notes()
}

struct Recorder {
    objects: Vec<Visited>,
    /// An object with these bytes is a finding.
    finding: Option<Vec<u8>>,
}

impl Visitor for Recorder {
    fn visit(&mut self, object: &MediaObject<'_>) -> ControlFlow<()> {
        let MediaObject { bytes, depth, container, is_repeated, .. } = *object;
        let path = object.report_path().join(" > ");
        self.objects.push(Visited { path, bytes: bytes.to_vec(), depth, container, is_repeated });
        if self.finding.as_deref() == Some(bytes) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// Walks through a media file.
pub(super) fn walk(media: &[u8], settings: &UnpackSettings) -> Walked {
    walk_until(media, settings, None)
}

/// Walks through a media file until an object is found.
pub(super) fn walk_until(
    media: &[u8],
    settings: &UnpackSettings,
    finding: Option<&[u8]>,
) -> Walked {
    let mut recorder = Recorder { objects: Vec::new(), finding: finding.map(<[u8]>::to_vec) };
    let mut unpacker = Unpacker::new(settings, &SELECTION, &mut recorder);
    unpacker.media(media);
    let notes = unpacker.into_notes();
    Walked { objects: recorder.objects, notes }
}

//! Tests of VBA projects.

use std::io::Read;

use super::{compound, compound_of_version, payload};
use crate::{
    report::NoteKind,
    unpack::{
        document::ole::vba_decoder::VbaDecoder,
        tests::{ContainerSample, collect},
    },
};

const SOURCE: &[u8] =
    b"Attribute VB_Name = \"Module1\"\r\nSub AutoOpen()\r\nShell \"marker\"\r\nEnd Sub\r\n";

/// Compresses source code, [MS-OVBA] 2.4.1, without references to earlier text.
pub(crate) fn compress(source: &[u8]) -> Vec<u8> {
    let mut container = vec![1];
    // Chunks have 4096 bytes of text.
    for text in source.chunks(4096) {
        let tokens: Vec<u8> = text.chunks(8).flat_map(|group| [&[0], group].concat()).collect();
        let (flags, data) = if tokens.len() <= 4096 {
            (0xb000, tokens)
        } else {
            let mut raw = text.to_vec();
            raw.resize(4096, 0);
            (0x3000, raw)
        };
        container.extend((flags | u16::try_from(data.len() - 1).unwrap()).to_le_bytes());
        container.extend(data);
    }
    container
}

fn record(id: u16, data: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes(), super::size(data).as_slice(), data].concat()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Returns the stream `dir` of a project with these modules: names, and the positions of the source code.
fn directory(modules: &[(&str, u32)]) -> Vec<u8> {
    let mut records = [
        record(0x01, &[1, 0, 0, 0]),
        record(0x02, &[9, 4, 0, 0]),
        record(0x14, &[9, 4, 0, 0]),
        record(0x03, &[0xe4, 4]),
        record(0x04, b"VBAProject"),
        [record(0x05, b""), record(0x40, b"")].concat(),
        [record(0x06, b""), record(0x3d, b"")].concat(),
        record(0x07, &[0; 4]),
        record(0x08, &[0; 4]),
        // The size of the version is less than that of its data.
        b"\x09\0\x04\0\0\0\x01\0\0\0\x02\0".to_vec(),
        [record(0x0c, b""), record(0x3c, b"")].concat(),
        record(0x0f, &u16::try_from(modules.len()).unwrap().to_le_bytes()),
        record(0x13, &[0xff, 0xff]),
    ]
    .concat();
    for (name, offset) in modules {
        let module = [
            [record(0x19, name.as_bytes()), record(0x47, &utf16(name))].concat(),
            [record(0x1a, name.as_bytes()), record(0x32, &utf16(name))].concat(),
            [record(0x1c, b""), record(0x48, b"")].concat(),
            record(0x31, &offset.to_le_bytes()),
            record(0x1e, &[0; 4]),
            record(0x2c, &[0xff, 0xff]),
            record(0x21, b""),
            record(0x2b, b""),
        ];
        records.extend(module.concat());
    }
    records.extend(record(0x10, b""));
    compress(&records)
}

/// Returns the streams of a project. The source code of each module is after 700 bytes of other data.
pub(crate) fn project(storage: &str, modules: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    let offsets: Vec<_> = modules.iter().map(|(name, _)| (*name, 700)).collect();
    let mut streams = vec![
        (format!("{storage}/VBA/dir"), directory(&offsets)),
        (format!("{storage}/VBA/_VBA_PROJECT"), b"\xcc\x61\xff\xff\0\0\0".to_vec()),
    ];
    let mut list = String::from("ID=\"{00000000-0000-0000-0000-000000000000}\"\r\n");
    for (name, source) in modules {
        let mut stream = vec![0; 700];
        stream.extend(compress(source));
        streams.push((format!("{storage}/VBA/{name}"), stream));
        list.extend(["Module=", name, "\r\n"]);
    }
    streams.push((format!("{storage}/PROJECT"), list.into_bytes()));
    streams
}

fn write(streams: &[(String, Vec<u8>)]) -> Vec<u8> {
    let streams: Vec<_> =
        streams.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    compound(&streams)
}

pub(super) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let modules = [("ThisDocument", SOURCE), ("Module1", payload.as_slice())];
    let mut long = payload.clone();
    long.resize(10_000, b'x');
    vec![
        ContainerSample::payload("ole-vba", write(&project("Macros", &modules))),
        ContainerSample::payload("ole-vba-root", write(&project("", &modules))),
        ContainerSample::payload("ole-vba-other-storage", write(&project("anything", &modules))),
        ContainerSample::payload(
            "ole-vba-chunks",
            write(&project("Macros", &[("Module1", &long)])),
        ),
    ]
}

#[test]
fn modules_are_decompressed() {
    let collected = collect(&write(&project("Macros", &[("Module1", SOURCE), ("Ünï", b"x")])));
    assert!(collected.objects.contains(&("Module1.bas".into(), SOURCE.to_vec())), "{collected:?}");
    assert!(collected.objects.contains(&("Ünï.bas".into(), b"x".to_vec())), "{collected:?}");
    assert!(collected.notes.is_empty(), "{collected:?}");
    // Once, although the search finds the module too.
    assert_eq!(collected.paths().iter().filter(|path| **path == "Module1.bas").count(), 1);
}

#[test]
fn modules_are_found_without_a_directory() {
    let mut streams = project("Macros", &[("Module1", SOURCE)]);
    for (directory, is_noted) in [(None, false), (Some(b"stub".to_vec()), true)] {
        match directory {
            None => streams[0].0 = "Macros/VBA/other".into(),
            Some(stub) => streams[0] = ("Macros/VBA/DIR".into(), stub),
        }
        let collected = collect(&write(&streams));
        assert!(collected.contains(b"Shell \"marker\""), "{collected:?}");
        assert_eq!(collected.note(NoteKind::Unreadable).is_some(), is_noted, "{collected:?}");
    }
}

#[test]
fn modules_are_found_beside_a_damaged_one() {
    let mut streams =
        project("Macros", &[("Module1", SOURCE), ("Module2", SOURCE), ("Module3", b"x")]);
    streams[2].1.truncate(500);
    streams.remove(3);
    let collected = collect(&write(&streams));
    assert!(collected.paths().contains(&"Module3.bas"), "{collected:?}");
    assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
}

#[test]
fn module_in_sectors_of_4096_bytes() {
    let stream = [vec![0; 5000], compress(SOURCE)].concat();
    let file = compound_of_version(
        cfb::Version::V4,
        &[("VBA/dir", &directory(&[("M", 5000)])), ("VBA/M", &stream), ("VBA/_VBA_PROJECT", b"x")],
    );
    assert!(collect(&file).contains(b"Shell \"marker\""));
}

#[test]
fn file_named_dir_is_not_noted() {
    let file = compound(&[("dir", b"Volume in drive C has no label."), ("other", b"\0Attribute")]);
    assert!(collect(&file).notes.is_empty());
}

/// The examples of [MS-OVBA] 3.2.
#[test]
fn examples_of_the_specification_are_decompressed() {
    let examples: [(&[u8], &str); 3] = [
        (
            b"\x01\x19\xb0\x00abcdefgh\x00ijklmnop\x00qrstuv.",
            "abcdefghijklmnopqrstuv.",
        ),
        (
            b"\x01\x2f\xb0\x00#aaabcde\x82f\x00paghij\x018\x08akl\x000mnop\x06q\x02p\x04\x10rstuv\x10wxyz\x00<",
            "#aaabcdefaaaaghijaaaaaklaaamnopqaaaaaaaaaaaarstuvwxyzaaa",
        ),
        (b"\x01\x03\xb0\x02aE\x00", &"a".repeat(73)),
    ];
    for (container, text) in examples {
        let mut decoded = String::new();
        VbaDecoder::new(container).read_to_string(&mut decoded).unwrap();
        assert_eq!(decoded, text);
    }
}

#[test]
fn damaged_containers_are_errors_after_their_text() {
    let container = compress(SOURCE);
    for length in 0..container.len() {
        let mut decoded = Vec::new();
        let result = VbaDecoder::new(&container[..length]).read_to_end(&mut decoded);
        assert!(result.is_err(), "{length}");
        assert!(SOURCE.starts_with(&decoded), "{length}");
    }
    // Zeros at the end of a stream.
    let mut decoded = Vec::new();
    VbaDecoder::new([container.as_slice(), &[0; 60]].concat().as_slice())
        .read_to_end(&mut decoded)
        .unwrap();
    assert_eq!(decoded, SOURCE);
}

#[test]
fn large_project_takes_linear_time() {
    // Modules at each position of a stream of containers without text.
    let stream = b"\x01\x00\xb0\0\x00\xb0\0Attribut".repeat(20_000);
    let offsets: Vec<_> = (0..20_000).map(|index| ("M", index * 15)).collect();
    let file = compound(&[("VBA/dir", &directory(&offsets)), ("VBA/M", &stream)]);
    let start = std::time::Instant::now();
    collect(&file);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

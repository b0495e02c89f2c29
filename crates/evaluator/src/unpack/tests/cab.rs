//! Cabinets. 7-Zip and bsdtar extract the samples with the payload.

use flate2::{Compress, Compression, FlushCompress};

use super::{ContainerSample, Expected, collect, collect_within, payload};
use crate::{report::NoteKind, unpack::UnpackSettings};

const NAME: &str = "payload.txt";

const STORED: u16 = 0;
const MSZIP: u16 = 1;
/// LZX with a window of 2 MiB.
const LZX: u16 = 0x1503;
const QUANTUM: u16 = 0x1472;

/// Maximum length of the output of a block, bytes.
const BLOCK: usize = 1 << 15;

/// A file: folder, offset in its output, size, and name.
type CabFileSpec<'a> = (u16, usize, usize, &'a str);

/// Data of a block, and length of its output.
type CabBlock = (Vec<u8>, usize);

/// Folders and files of a cabinet.
#[derive(Default)]
struct CabWriter<'a> {
    /// Compression, and blocks.
    folders: Vec<(u16, Vec<CabBlock>)>,
    files: Vec<CabFileSpec<'a>>,
    /// Length of reserved data of the header, of each folder and of each block.
    reserved: Option<(u16, u8, u8)>,
    /// Names of the cabinet before this one and of its disk.
    previous: bool,
    /// Bits that are inverted in the checksums.
    checksum_change: u32,
}

impl CabWriter<'_> {
    fn build(&self) -> Vec<u8> {
        let (header_reserved, folder_reserved, block_reserved) = self.reserved.unwrap_or_default();
        let mut optional = Vec::new();
        if self.reserved.is_some() {
            optional.extend(header_reserved.to_le_bytes());
            optional.extend([folder_reserved, block_reserved]);
            optional.resize(optional.len() + usize::from(header_reserved), 0xee);
        }
        if self.previous {
            optional.extend(b"previous.cab\0disk 1\0");
        }
        let folders_length = self.folders.len() * (8 + usize::from(folder_reserved));
        let files_start = 36 + optional.len() + folders_length;
        let mut files = Vec::new();
        for (folder, start, size, name) in &self.files {
            files.extend(u32::try_from(*size).unwrap().to_le_bytes());
            files.extend(u32::try_from(*start).unwrap().to_le_bytes());
            files.extend(folder.to_le_bytes());
            files.extend([0x21, 0x5a, 0, 0, 0x20, 0]);
            files.extend([name.as_bytes(), &[0]].concat());
        }
        let mut data_start = files_start + files.len();
        let (mut folders, mut data) = (Vec::new(), Vec::new());
        for (method, blocks) in &self.folders {
            folders.extend(u32::try_from(data_start).unwrap().to_le_bytes());
            folders.extend(u16::try_from(blocks.len()).unwrap().to_le_bytes());
            folders.extend(method.to_le_bytes());
            folders.resize(folders.len() + usize::from(folder_reserved), 0xee);
            let before = data.len();
            for (block, size) in blocks {
                let checksum = match block_reserved {
                    0 => checksum(block, *size) ^ self.checksum_change,
                    _ => 0,
                };
                data.extend(checksum.to_le_bytes());
                data.extend(
                    [block.len(), *size].map(|n| u16::try_from(n).unwrap().to_le_bytes()).concat(),
                );
                data.resize(data.len() + usize::from(block_reserved), 0xee);
                data.extend(block);
            }
            data_start += data.len() - before;
        }
        let flags = u16::from(self.previous) | u16::from(self.reserved.is_some()) << 2;
        let mut cabinet = b"MSCF\0\0\0\0".to_vec();
        cabinet.extend(u32::try_from(data_start).unwrap().to_le_bytes());
        cabinet.extend([0; 4]);
        cabinet.extend(u32::try_from(files_start).unwrap().to_le_bytes());
        cabinet.extend([0, 0, 0, 0, 3, 1]);
        cabinet.extend(u16::try_from(self.folders.len()).unwrap().to_le_bytes());
        cabinet.extend(u16::try_from(self.files.len()).unwrap().to_le_bytes());
        cabinet.extend(flags.to_le_bytes());
        cabinet.extend([0x34, 0x12, 0, 0]);
        [cabinet, optional, folders, files, data].concat()
    }
}

fn checksum(block: &[u8], size: usize) -> u32 {
    let words = block.chunks(4).map(|chunk| match chunk.try_into() {
        Ok(word) => u32::from_le_bytes(word),
        Err(_short) => chunk.iter().fold(0, |last, byte| last << 8 | u32::from(*byte)),
    });
    words.fold(0, |sum, word| sum ^ word) ^ u32::try_from(block.len() | size << 16).unwrap()
}

fn stored(content: &[u8]) -> Vec<CabBlock> {
    content.chunks(BLOCK).map(|block| (block.to_vec(), block.len())).collect()
}

fn mszip(content: &[u8]) -> Vec<CabBlock> {
    let mut compress = Compress::new(Compression::best(), false);
    let block = |block: &[u8]| {
        let mut data = Vec::with_capacity(2 * BLOCK);
        data.extend(b"CK");
        // The next block refers to this one.
        compress.compress_vec(block, &mut data, FlushCompress::Sync).unwrap();
        data.extend([3, 0]);
        (data, block.len())
    };
    content.chunks(BLOCK).map(block).collect()
}

/// Returns a block of LZX that is not compressed.
fn lzx(content: &[u8]) -> Vec<CabBlock> {
    let start = 0x3000_0000 | u32::try_from(content.len()).unwrap() << 4;
    let halves =
        [start >> 16, start & 0xffff].map(|half| u16::try_from(half).unwrap().to_le_bytes());
    let offsets = [1_u32; 3].map(u32::to_le_bytes).concat();
    vec![([&halves.concat(), &offsets, content].concat(), content.len())]
}

/// Returns a cabinet with one folder.
fn one<'a>(method: u16, blocks: Vec<CabBlock>, files: &[CabFileSpec<'a>]) -> CabWriter<'a> {
    CabWriter { folders: vec![(method, blocks)], files: files.to_vec(), ..CabWriter::default() }
}

/// Returns content with the payload at an offset in the second block.
fn long_content() -> (Vec<u8>, usize) {
    let mut content: Vec<u8> =
        b"line of text\n".iter().copied().cycle().take(BLOCK + 5000).collect();
    let start = content.len();
    content.extend(payload());
    (content, start)
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let size = payload.len();
    let whole = [(0, 0, size, NAME)];
    let (long, start) = long_content();
    let parts = [(0, 0, start, "text.txt"), (0, start, size, NAME)];
    let writers = [
        ("stored", one(STORED, stored(&payload), &whole)),
        ("mszip", one(MSZIP, mszip(&payload), &whole)),
        ("lzx", one(LZX, lzx(&payload), &whole)),
        ("stored-blocks", one(STORED, stored(&long), &parts)),
        ("mszip-blocks", one(MSZIP, mszip(&long), &parts)),
        ("gap", one(MSZIP, mszip(&long), &parts[1..])),
        ("unsorted", one(MSZIP, mszip(&long), &[parts[1], parts[0]])),
        ("overlapping", one(MSZIP, mszip(&long), &[(0, 0, start + 9, "text.txt"), parts[1]])),
        ("equal", one(MSZIP, mszip(&payload), &[whole[0], (0, 0, size, "copy.exe")])),
        (
            "folders",
            CabWriter {
                folders: vec![(STORED, stored(b"first")), (MSZIP, mszip(&payload))],
                files: vec![(0, 0, 5, "a"), (1, 0, size, NAME)],
                ..CabWriter::default()
            },
        ),
        (
            "reserved",
            CabWriter { reserved: Some((20, 3, 4)), ..one(STORED, stored(&payload), &whole) },
        ),
        ("parent-name", one(STORED, stored(&payload), &[(0, 0, size, "..\\..\\payload.txt")])),
        ("wrong-checksum", CabWriter { checksum_change: 1, ..one(MSZIP, mszip(&payload), &whole) }),
        (
            "continued",
            CabWriter {
                previous: true,
                ..one(STORED, stored(&payload), &[(0xfffd, 0, 9, "a"), whole[0]])
            },
        ),
        ("unfinished", one(STORED, stored(&payload), &[(0xfffe, 0, 500, NAME)])),
    ];
    let mut samples: Vec<_> = writers
        .iter()
        .map(|(name, writer)| ContainerSample::payload(format!("cab-{name}"), writer.build()))
        .collect();
    let cabinet = writers[1].1.build();
    let program = [b"MZ\x90\0program", &cabinet[..], b"rest"].concat();
    samples.push(ContainerSample::payload("cab-self-extracting", program));
    samples.push(ContainerSample::payload("cab-truncated", {
        let cabinet = one(STORED, stored(&payload), &whole).build();
        cabinet[..cabinet.len() - 20].to_vec()
    }));
    let quantum = one(QUANTUM, stored(&payload), &whole).build();
    let header = cabinet[..30].to_vec();
    for (name, bytes) in [("quantum", quantum), ("header", header)] {
        let expected = Expected::Note(NoteKind::Unreadable);
        samples.push(ContainerSample::new(format!("cab-{name}"), bytes, expected));
    }
    samples
}

#[test]
fn samples_give_what_is_expected() {
    const NOTED: [&str; 4] = ["wrong-checksum", "continued", "unfinished", "truncated"];
    for sample in samples() {
        sample.check();
        if sample.expected == Expected::Payload {
            let is_noted = NOTED.iter().any(|name| sample.name.ends_with(name));
            let collected = collect(&sample.bytes);
            let unreadable = collected.note(NoteKind::Unreadable);
            assert_eq!(unreadable.is_some(), is_noted, "{}: {collected:?}", sample.name);
            assert!(collected.notes.len() <= 1, "{}: {collected:?}", sample.name);
        }
    }
}

#[test]
fn equal_parts_are_examined_under_each_name() {
    let writer = one(MSZIP, mszip(b"content"), &[(0, 0, 7, "a.txt"), (0, 0, 7, "a.exe")]);
    assert_eq!(collect(&writer.build()).paths(), ["a.txt", "a.exe"]);
}

#[test]
fn files_behind_a_too_large_one_are_examined() {
    let (long, start) = long_content();
    let parts = [(0, 0, start, "text.txt"), (0, start, 128, NAME)];
    let settings = UnpackSettings { max_file: 20_000, ..UnpackSettings::default() };
    let collected = collect_within(&one(MSZIP, mszip(&long), &parts).build(), &settings);
    assert!(collected.has_payload(), "{collected:?}");
    let kinds: Vec<_> = collected.notes.iter().map(|note| note.kind).collect();
    assert_eq!(kinds, [NoteKind::Limit], "{collected:?}");
}

#[test]
fn overlapping_parts_reach_a_limit() {
    let (long, _) = long_content();
    let files: Vec<_> = (0..9000).map(|index| (0, 9000 - index, 9000 + index * 2, "x")).collect();
    let start = std::time::Instant::now();
    let collected = collect(&one(MSZIP, mszip(&long), &files).build());
    assert!(collected.note(NoteKind::Limit).is_some());
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn output_before_damage_is_examined() {
    let mut content = payload();
    content.extend((0..30_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8));
    let mut blocks = mszip(&content);
    let length = blocks[0].0.len();
    blocks[0].0.truncate(length / 2);
    let collected = collect(&one(MSZIP, blocks, &[(0, 0, content.len(), NAME)]).build());
    assert!(collected.has_payload() && collected.note(NoteKind::Unreadable).is_some());
}

/// 7-Zip ignores the version in the header.
#[test]
fn any_version_is_unpacked() {
    let cabinets = samples().into_iter().filter(|sample| sample.bytes.starts_with(b"MSCF"));
    let mut cabinets = cabinets.filter(|sample| sample.expected == Expected::Payload);
    let mut bytes = cabinets.next().unwrap().bytes;
    for version in [[0, 0], [3, 2], [0xff, 0xff]] {
        bytes[24..26].copy_from_slice(&version);
        let collected = collect(&bytes);
        assert!(collected.has_payload(), "{version:?}: {collected:?}");
    }
}

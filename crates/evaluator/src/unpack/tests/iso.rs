//! ISO 9660 images. 7-Zip extracts the written images.

use proptest::{collection::vec, prelude::*};

use super::{ContainerSample, Expected, collect, payload};
use crate::report::NoteKind;

const SECTOR: usize = 2048;

/// Sectors of the written images.
const PRIMARY: u8 = 16;
const SUPPLEMENTARY: u8 = 17;
const BOOT: u8 = 18;
const END: u8 = 19;
const PATH_TABLE: u8 = 20;
const CATALOG: u8 = 21;
const ROOT: u8 = 22;
const JOLIET_ROOT: u8 = 23;
const SUBDIRECTORY: u8 = 24;
const CONTENT: u8 = 25;
const SECTORS: u8 = 30;

struct IsoWriter(Vec<u8>);

impl IsoWriter {
    /// Creates an image without files: primary descriptor, terminator, path table and root directory.
    fn new() -> Self {
        let mut image = Self(vec![0; usize::from(SECTORS) * SECTOR]);
        image.descriptor(PRIMARY, 1, ROOT);
        image.put(END, 0, b"\xffCD001\x01");
        image.put(PATH_TABLE, 0, &[1, 0, ROOT, 0, 0, 0, 1, 0, 0, 0]);
        image.directory(ROOT, &[]);
        image
    }

    fn put(&mut self, sector: impl Into<usize>, offset: usize, bytes: &[u8]) {
        self.0[sector.into() * SECTOR + offset..][..bytes.len()].copy_from_slice(bytes);
    }

    fn descriptor(&mut self, sector: u8, kind: u8, root: u8) {
        self.put(sector, 0, &[&[kind][..], b"CD001\x01"].concat());
        self.put(sector, 8, &[b' '; 64]);
        self.put(sector, 80, &both(SECTORS.into()));
        self.put(sector, 120, &[1, 0, 0, 1, 1, 0, 0, 1, 0, 8, 8, 0]);
        self.put(sector, 132, &both(10));
        self.put(sector, 140, &u32::from(PATH_TABLE).to_le_bytes());
        self.put(sector, 156, &record(b"\0", root, SECTOR, 2, b""));
        self.put(sector, 881, &[1]);
    }

    fn directory(&mut self, sector: impl Into<usize> + Into<u32> + Copy, records: &[Vec<u8>]) {
        let own = [record(b"\0", sector, SECTOR, 2, b""), record(b"\x01", ROOT, SECTOR, 2, b"")];
        self.put(sector, 0, &[own.concat(), records.concat()].concat());
    }

    /// Moves the descriptors to consecutive sectors.
    fn join_descriptors(&mut self) {
        let mut next = PRIMARY;
        for sector in PRIMARY..=END {
            let descriptor = self.0[usize::from(sector) * SECTOR..][..SECTOR].to_vec();
            if descriptor[1..].starts_with(b"CD001") {
                self.put(sector, 0, &[0; SECTOR]);
                self.put(next, 0, &descriptor);
                next += 1;
            }
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Vec<u8> {
        self.put(CONTENT, 0, &payload());
        change(&mut self);
        self.join_descriptors();
        self.0
    }
}

/// Returns a number in both byte orders.
fn both(number: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn record(
    name: &[u8],
    sector: impl Into<u32>,
    length: usize,
    flags: u8,
    system_use: &[u8],
) -> Vec<u8> {
    let mut record = vec![0; 33];
    record[2..10].copy_from_slice(&both(sector.into()));
    record[10..18].copy_from_slice(&both(length.try_into().unwrap()));
    record[18..25].copy_from_slice(&[126, 11, 28, 0, 0, 0, 0]);
    record[25] = flags;
    record[28..32].copy_from_slice(&[1, 0, 0, 1]);
    record[32] = name.len().try_into().unwrap();
    record.extend_from_slice(name);
    record.resize(record.len().next_multiple_of(2), 0);
    record.extend_from_slice(system_use);
    record.resize(record.len().next_multiple_of(2), 0);
    record[0] = record.len().try_into().unwrap();
    record
}

fn payload_record(name: &[u8]) -> Vec<u8> {
    record(name, CONTENT, payload().len(), 0, b"")
}

/// Writes an image with the payload in one file.
pub(super) fn plain() -> Vec<u8> {
    IsoWriter::new().with(|image| image.directory(ROOT, &[payload_record(b"SETUP.EXE;1")]))
}

fn joliet_name(name: &str) -> Vec<u8> {
    name.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn joliet(image: &mut IsoWriter, records: &[Vec<u8>]) {
    image.descriptor(SUPPLEMENTARY, 2, JOLIET_ROOT);
    image.put(SUPPLEMENTARY, 88, b"%/E");
    image.directory(JOLIET_ROOT, records);
}

/// Writes an image as raw sectors.
fn raw(image: &[u8], mode: u8, sector: usize) -> Vec<u8> {
    let header = [&[0][..], &[0xff; 10], &[0, 0, 2, 0, mode]].concat();
    let mut bytes = Vec::new();
    for data in image.chunks(SECTOR) {
        let start = bytes.len();
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&[0; 8][..if mode == 2 { 8 } else { 0 }]);
        bytes.extend_from_slice(data);
        bytes.resize(start + sector, 0);
    }
    bytes
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    [common_samples(), unusual_samples()].into_iter().flatten().collect()
}

fn with_root(records: &[Vec<u8>]) -> Vec<u8> {
    IsoWriter::new().with(|image| image.directory(ROOT, records))
}

/// Writes an image with a directory below the root.
fn with_subdirectory(records: &[Vec<u8>]) -> Vec<u8> {
    IsoWriter::new().with(|image| {
        image.directory(ROOT, &[record(b"DIR", SUBDIRECTORY, SECTOR, 2, b"")]);
        image.directory(SUBDIRECTORY, records);
    })
}

/// Returns images that most programs read.
fn common_samples() -> Vec<ContainerSample> {
    let length = payload().len();
    let joliet_only =
        IsoWriter::new().with(|image| joliet(image, &[payload_record(&joliet_name("Setup.exe"))]));
    let primary_only = IsoWriter::new().with(|image| {
        image.directory(ROOT, &[payload_record(b"F;1")]);
        joliet(image, &[]);
    });
    let rock_ridge = record(b"SETUP;1", CONTENT, length, 0, b"NM\x0e\x01\0setup.exe");
    let two_extents = IsoWriter::new().with(|image| {
        image.put(CONTENT, 64, &[0; 100]);
        image.put(CONTENT + 1, 0, &payload()[64..]);
        let first = record(b"F;1", CONTENT, 64, 0x80, b"");
        image.directory(ROOT, &[first, record(b"F;1", CONTENT + 1, length - 64, 0, b"")]);
    });
    let hidden = record(b"F;1", CONTENT, length, 1, b"");
    let parent = record(b"UP", ROOT, SECTOR, 2, b"");
    vec![
        ContainerSample::payload("iso/plain.iso", plain()),
        ContainerSample::payload("iso/directory.iso", with_subdirectory(&[payload_record(b"F;1")])),
        ContainerSample::payload("iso/joliet-only.iso", joliet_only),
        ContainerSample::payload("iso/primary-only.iso", primary_only),
        ContainerSample::payload("iso/rock-ridge.iso", with_root(&[rock_ridge])),
        ContainerSample::payload("iso/two-extents.iso", two_extents),
        ContainerSample::payload(
            "iso/loop.iso",
            with_subdirectory(&[parent, payload_record(b"F;1")]),
        ),
        ContainerSample::payload("iso/hidden.iso", with_root(&[hidden])),
        ContainerSample::new("iso/empty.iso", IsoWriter::new().with(|_| ()), Expected::Clean),
    ]
}

/// Returns images that some programs read.
fn unusual_samples() -> Vec<ContainerSample> {
    let length = payload().len();
    let mut attributes = record(b"F;1", CONTENT - 1, length, 0, b"");
    attributes[1] = 1;
    let in_path_table = IsoWriter::new().with(|image| {
        image.directory(SUBDIRECTORY, &[payload_record(b"F;1")]);
        image.put(PATH_TABLE, 10, &[3, 0, SUBDIRECTORY, 0, 0, 0, 1, 0, b'D', b'I', b'R', 0]);
        image.put(PRIMARY, 132, &both(22));
    });
    let boot = IsoWriter::new().with(|image| {
        image.put(BOOT, 0, b"\0CD001\x01EL TORITO SPECIFICATION");
        image.put(BOOT, 0x47, &u32::from(CATALOG).to_le_bytes());
        image.put(CATALOG, 0, &[1, 0, 0, 0]);
        image.put(CATALOG, 28, &[0xaa, 0x55, 0x55, 0xaa, 0x88, 0, 0, 0, 0, 0, 1, 0, CONTENT]);
    });
    let mut moved = plain();
    let primary = usize::from(PRIMARY) * SECTOR;
    moved.copy_within(primary..primary + 2 * SECTOR, primary + SECTOR);
    moved[primary..][..SECTOR].fill(0);
    let too_long = record(b"F;1", CONTENT, 1 << 30, 0, b"");
    let beyond = with_root(&[record(b"A;1", 5000_u32, 10, 0, b""), too_long]);
    vec![
        ContainerSample::payload("iso/extended-attributes.iso", with_root(&[attributes])),
        ContainerSample::payload("iso/path-table-only.iso", in_path_table),
        ContainerSample::payload("iso/descriptor-moved.iso", moved),
        ContainerSample::payload("iso/boot-image.iso", boot),
        ContainerSample::payload("iso/beyond-end.iso", beyond),
        ContainerSample::payload("iso/raw-mode-1.bin", raw(&plain(), 1, 2352)),
        ContainerSample::payload("iso/raw-mode-2.bin", raw(&plain(), 2, 2352)),
        ContainerSample::payload("iso/raw-subchannels.bin", raw(&plain(), 1, 2448)),
    ]
}

#[test]
fn images_are_unpacked() {
    samples().iter().for_each(ContainerSample::check);
}

#[test]
fn valid_images_cause_no_notes() {
    for sample in samples() {
        let notes = collect(&sample.bytes).notes;
        assert_eq!(!notes.is_empty(), sample.name.contains("beyond"), "{}: {notes:?}", sample.name);
    }
}

#[test]
fn names_are_reported() {
    let paths = |name: &str| {
        let sample = samples().into_iter().find(|sample| sample.name == name).unwrap();
        collect(&sample.bytes).paths().join(", ")
    };
    assert_eq!(paths("iso/plain.iso"), "SETUP.EXE");
    assert_eq!(paths("iso/directory.iso"), "DIR/F");
    assert_eq!(paths("iso/joliet-only.iso"), "Setup.exe");
    assert_eq!(paths("iso/rock-ridge.iso"), "setup.exe");
    assert_eq!(paths("iso/boot-image.iso"), "boot image, boot image and the rest");
}

#[test]
fn files_of_both_volumes_are_read_once() {
    let image = IsoWriter::new().with(|image| {
        image.directory(ROOT, &[payload_record(b"F;1")]);
        joliet(image, &[payload_record(&joliet_name("File"))]);
    });
    assert_eq!(collect(&image).paths(), ["File"]);
}

/// 7-Zip rejects images with an irregular record or descriptor, and takes the second descriptor for the start of another
/// image. All its files are one sector later then.
#[test]
fn image_that_starts_at_the_second_descriptor_is_read() {
    let image = |change: fn(&mut IsoWriter)| {
        IsoWriter::new().with(|image| {
            joliet(image, &[record(&joliet_name("a"), CONTENT + 2, 1, 0, b"")]);
            image.directory(SUBDIRECTORY, &[payload_record(&joliet_name("F"))]);
            image.put(CONTENT, 0, &[0; SECTOR]);
            image.put(CONTENT + 1, 0, &payload());
            change(image);
        })
    };
    assert!(!collect(&image(|_| ())).has_payload());
    let changes: [fn(&mut IsoWriter); 6] = [
        // The last byte of the length of the directory, in big-endian byte order.
        |image| image.put(JOLIET_ROOT, 17, &[9]),
        |image| image.put(JOLIET_ROOT, 1, &[1]),
        |image| image.put(JOLIET_ROOT, 32, &[8]),
        |image| image.put(PRIMARY, 72, b"x"),
        |image| image.put(PRIMARY, 813, b"x"),
        |image| image.put(PRIMARY, 87, b"x"),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert!(collect(&image(change)).has_payload(), "{index}");
    }
}

/// 7-Zip rejects the first image, which has no volume.
#[test]
fn image_behind_a_rejected_one_is_read() {
    let mut boot_only = IsoWriter::new();
    boot_only.put(PRIMARY, 0, &[0]);
    let images = [boot_only.with(|_| ()), vec![b'x'; 500], plain()].concat();
    assert!(collect(&images).has_payload());
}

#[test]
fn overlapping_directories_are_bounded() {
    // Each sector is a directory that reaches to the end.
    let image = IsoWriter::new().with(|image| {
        let length = 2000 * SECTOR;
        image.0.resize(length, 0);
        let records = (30..80_u32)
            .map(|sector| record(b"D", sector, length - sector as usize * SECTOR, 2, b""));
        image.directory(ROOT, &records.take(45).collect::<Vec<_>>());
    });
    assert!(collect(&image).note(NoteKind::Unreadable).is_some());
}

#[test]
fn truncated_images_are_bounded() {
    for sample in samples() {
        for length in (30_000..sample.bytes.len()).step_by(501) {
            collect(&sample.bytes[..length]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn changed_images_are_bounded(
        index in any::<prop::sample::Index>(),
        // Descriptors, tables and directories.
        changes in vec((16 * SECTOR..25 * SECTOR, any::<u8>()), 1..20),
    ) {
        let samples = samples();
        let mut bytes = index.get(&samples).bytes.clone();
        for (offset, value) in changes {
            bytes[offset] = value;
        }
        collect(&bytes);
    }
}

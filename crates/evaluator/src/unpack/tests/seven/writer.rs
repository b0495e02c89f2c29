//! Writes 7z archives, correct and incorrect ones.

use std::io::Write;

use bzip2::{Compression, write::BzEncoder};
use lzma_rust2::{
    Lzma2Options, Lzma2Writer, LzmaOptions, LzmaWriter,
    filter::{
        bcj::BcjWriter,
        bcj2::{Bcj2Options, Bcj2Writer},
        delta::DeltaWriter,
    },
};
use ppmd_rust::Ppmd7Encoder;

use crate::unpack::tests::zip::{crc, deflate};

pub(super) const DICTIONARY: u32 = 1 << 16;

/// A decoder: method, number of inputs, and properties.
#[derive(Clone)]
pub(super) struct CoderSpec(pub(super) &'static [u8], pub(super) u64, pub(super) Vec<u8>);

/// A folder: its decoders, of which the first one gives the files, and the packed streams.
#[derive(Clone)]
pub(super) struct FolderSpec {
    pub(super) coders: Vec<CoderSpec>,
    /// Input and output that are connected.
    pub(super) bonds: Vec<(u64, u64)>,
    pub(super) packs: Vec<Vec<u8>>,
    /// Size of the output of each decoder.
    pub(super) sizes: Vec<u64>,
    pub(super) files: Vec<(&'static str, Vec<u8>)>,
}

impl FolderSpec {
    /// Creates a folder with one decoder.
    pub(super) fn one(
        method: &'static [u8],
        properties: &[u8],
        pack: Vec<u8>,
        files: &[(&'static str, &[u8])],
    ) -> Self {
        let size = files.iter().map(|(_, content)| content.len() as u64).sum();
        Self {
            coders: vec![CoderSpec(method, 1, properties.to_vec())],
            bonds: Vec::new(),
            packs: vec![pack],
            sizes: vec![size],
            files: files.iter().map(|(name, content)| (*name, content.to_vec())).collect(),
        }
    }

    pub(super) fn copied(files: &[(&'static str, &[u8])]) -> Self {
        Self::one(&[0], &[], joined(files), files)
    }

    pub(super) fn lzma(files: &[(&'static str, &[u8])]) -> Self {
        let (properties, pack) = lzma(&joined(files));
        Self::one(&[3, 1, 1], &properties, pack, files)
    }

    pub(super) fn lzma2(files: &[(&'static str, &[u8])]) -> Self {
        Self::one(&[0x21], &[8], lzma2(&joined(files)), files)
    }

    /// Creates a folder with a filter before LZMA2.
    pub(super) fn filtered(
        method: &'static [u8],
        properties: &[u8],
        filtered: &[u8],
        file: (&'static str, &[u8]),
    ) -> Self {
        Self {
            coders: vec![CoderSpec(method, 1, properties.to_vec()), CoderSpec(&[0x21], 1, vec![8])],
            bonds: vec![(0, 1)],
            packs: vec![lzma2(filtered)],
            sizes: vec![filtered.len() as u64; 2],
            files: vec![(file.0, file.1.to_vec())],
        }
    }

    /// Creates a folder with BCJ2, whose four inputs are stored as they are but the first one.
    pub(super) fn bcj2(name: &'static str, content: &[u8]) -> Self {
        let outputs = [const { Vec::new() }; 4];
        let mut writer = Bcj2Writer::new(outputs, &Bcj2Options::default()).unwrap();
        writer.write_all(content).unwrap();
        let [main, call, jump, range] = writer.finish().unwrap();
        let sizes = vec![content.len() as u64, main.len() as u64];
        Self {
            coders: vec![
                CoderSpec(&[3, 3, 1, 0x1b], 4, Vec::new()),
                CoderSpec(&[0x21], 1, vec![8]),
            ],
            bonds: vec![(0, 1)],
            packs: vec![lzma2(&main), call, jump, range],
            sizes,
            files: vec![(name, content.to_vec())],
        }
    }

    fn definition(&self) -> Vec<u8> {
        let mut bytes = number(self.coders.len() as u64);
        let mut inputs = 0;
        for CoderSpec(method, count, properties) in &self.coders {
            let is_complex = *count != 1;
            let flags = method.len() | usize::from(is_complex) << 4;
            let flags = flags | usize::from(!properties.is_empty()) << 5;
            bytes.push(u8::try_from(flags).unwrap());
            bytes.extend_from_slice(method);
            if is_complex {
                bytes.extend([number(*count), number(1)].concat());
            }
            if !properties.is_empty() {
                bytes.extend([number(properties.len() as u64), properties.clone()].concat());
            }
            inputs += count;
        }
        for (input, output) in &self.bonds {
            bytes.extend([number(*input), number(*output)].concat());
        }
        if self.packs.len() > 1 {
            // The last decoder reads the first stream; the other streams are the free inputs.
            let free =
                (0..inputs - 1).filter(|input| self.bonds.iter().all(|bond| bond.0 != *input));
            bytes.extend([inputs - 1].into_iter().chain(free).flat_map(number));
        }
        bytes
    }
}

/// An archive.
#[derive(Clone, Default)]
pub(super) struct SevenWriter {
    pub(super) folders: Vec<FolderSpec>,
    /// Names of directories before the files.
    pub(super) directories: Vec<&'static str>,
    pub(super) without_names: bool,
    /// The folder that the header is compressed in.
    pub(super) header_folder: Option<fn(&[u8]) -> FolderSpec>,
    /// Bits that are inverted in the stated CRC-32 of each file.
    pub(super) crc_change: u32,
}

impl SevenWriter {
    pub(super) fn new(folders: impl IntoIterator<Item = FolderSpec>) -> Self {
        Self { folders: folders.into_iter().collect(), ..Self::default() }
    }

    /// Returns the archive.
    pub(super) fn build(&self) -> Vec<u8> {
        let mut data: Vec<u8> = packs(&self.folders).concat();
        let mut header = self.header();
        if let Some(folder) = self.header_folder {
            let folder = folder(&header);
            let position = data.len() as u64;
            data.extend(folder.packs.concat());
            header = [vec![0x17], streams(&[folder], position, None)].concat();
        }
        archive(&data, &header)
    }

    fn header(&self) -> Vec<u8> {
        let mut header = vec![0x01];
        if !self.folders.is_empty() {
            header.push(0x04);
            header.extend(streams(&self.folders, 0, Some(self.crc_change)));
        }
        header.extend([self.files(), vec![0]].concat());
        header
    }

    fn files(&self) -> Vec<u8> {
        let files = self.folders.iter().flat_map(|folder| &folder.files).map(|(name, _)| *name);
        let names: Vec<_> = self.directories.iter().copied().chain(files).collect();
        let mut bytes = [vec![0x05], number(names.len() as u64)].concat();
        let mut empty = vec![0_u8; names.len().div_ceil(8)];
        for index in 0..self.directories.len() {
            empty[index / 8] |= 0x80 >> (index % 8);
        }
        bytes.extend(property(0x0e, &empty));
        if !self.without_names {
            let units = names.iter().flat_map(|name| name.encode_utf16().chain([0]));
            let text: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
            bytes.extend(property(0x11, &[vec![0], text].concat()));
        }
        // Padding, as 7-Zip writes it.
        bytes.extend(property(0x19, &[0, 0]));
        bytes.push(0);
        bytes
    }
}

/// Returns an archive with these packed streams and this header.
pub(super) fn archive(data: &[u8], header: &[u8]) -> Vec<u8> {
    let fields = [
        &(data.len() as u64).to_le_bytes()[..],
        &(header.len() as u64).to_le_bytes(),
        &crc(header).to_le_bytes(),
    ]
    .concat();
    let start = [&b"7z\xbc\xaf\x27\x1c\x00\x04"[..], &crc(&fields).to_le_bytes(), &fields].concat();
    [&start, data, header].concat()
}

fn packs(folders: &[FolderSpec]) -> Vec<Vec<u8>> {
    folders.iter().flat_map(|folder| folder.packs.clone()).collect()
}

/// Returns a header about streams that start at `position`, with files if a change of their CRC-32 is given.
fn streams(folders: &[FolderSpec], position: u64, files: Option<u32>) -> Vec<u8> {
    let packs = packs(folders);
    let mut bytes = [vec![0x06], number(position), number(packs.len() as u64), vec![0x09]].concat();
    bytes.extend(packs.iter().flat_map(|pack| number(pack.len() as u64)));
    bytes.extend([&[0x00, 0x07, 0x0b], &*number(folders.len() as u64), &[0]].concat());
    bytes.extend(folders.iter().flat_map(FolderSpec::definition));
    bytes.push(0x0c);
    bytes.extend(folders.iter().flat_map(|folder| folder.sizes.clone()).flat_map(number));
    bytes.push(0x00);
    if let Some(change) = files {
        bytes.extend([0x08, 0x0d]);
        bytes.extend(folders.iter().flat_map(|folder| number(folder.files.len() as u64)));
        bytes.push(0x09);
        for FolderSpec { files, .. } in folders {
            let all_but_last = files.iter().rev().skip(1).rev();
            bytes.extend(all_but_last.flat_map(|(_, content)| number(content.len() as u64)));
        }
        bytes.extend([0x0a, 0x01]);
        for (_, content) in folders.iter().flat_map(|folder| &folder.files) {
            bytes.extend((crc(content) ^ change).to_le_bytes());
        }
        bytes.push(0x00);
    }
    bytes.push(0x00);
    bytes
}

fn property(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &*number(value.len() as u64), value].concat()
}

/// Returns a number of variable length.
pub(super) fn number(value: u64) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    match value {
        0..0x80 => vec![bytes[0]],
        0x80..0x4000 => vec![0x80 | bytes[1], bytes[0]],
        _ => [&[0xff], &bytes[..]].concat(),
    }
}

fn joined(files: &[(&'static str, &[u8])]) -> Vec<u8> {
    files.iter().flat_map(|(_, content)| content.to_vec()).collect()
}

/// Returns the properties, and the data.
fn lzma(content: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let options = LzmaOptions { dict_size: DICTIONARY, ..LzmaOptions::with_preset(1) };
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false).unwrap();
    writer.write_all(content).unwrap();
    let properties = [&[writer.props()], &DICTIONARY.to_le_bytes()[..]].concat();
    (properties, writer.finish().unwrap())
}

/// Compresses with the dictionary that the property 8 states.
pub(super) fn lzma2(content: &[u8]) -> Vec<u8> {
    let lzma_options = LzmaOptions { dict_size: DICTIONARY, ..LzmaOptions::with_preset(1) };
    let options = Lzma2Options { lzma_options, ..Lzma2Options::default() };
    let mut writer = Lzma2Writer::new(Vec::new(), options);
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

/// Creates a writer of a filter for branches, with the address at which the program starts.
type NewFilter = fn(Vec<u8>, usize) -> BcjWriter<Vec<u8>>;

/// Returns the variants with one file: all methods and filters.
pub(super) fn methods(name: &'static str, content: &[u8]) -> Vec<(&'static str, FolderSpec)> {
    let files = &[(name, content)][..];
    let one = |method: &'static [u8], properties: &[u8], pack| {
        FolderSpec::one(method, properties, pack, files)
    };
    let mut ppmd = Ppmd7Encoder::new(Vec::new(), 6, 1 << 16).unwrap();
    ppmd.write_all(content).unwrap();
    let ppmd = ppmd.finish(false).unwrap();
    let mut bzip2 = BzEncoder::new(Vec::new(), Compression::best());
    bzip2.write_all(content).unwrap();
    let mut variants = vec![
        ("copy", FolderSpec::copied(files)),
        ("lzma", FolderSpec::lzma(files)),
        ("lzma2", FolderSpec::lzma2(files)),
        ("ppmd", one(&[3, 4, 1], &[6, 0, 0, 1, 0], ppmd)),
        ("bzip2", one(&[4, 2, 2], &[], bzip2.finish().unwrap())),
        ("deflate", one(&[4, 1, 8], &[], deflate(content))),
        // The content has no repetition that the methods encode differently.
        ("deflate64", one(&[4, 1, 9], &[], deflate(content))),
        ("bcj2", FolderSpec::bcj2(name, content)),
    ];
    let mut delta = DeltaWriter::new(Vec::new(), 4);
    delta.write_all(content).unwrap();
    let delta = FolderSpec::filtered(&[3], &[3], &delta.into_inner(), (name, content));
    variants.push(("delta", delta));
    let filters: [(_, &'static [u8], NewFilter); 8] = [
        ("x86", &[3, 3, 1, 3], BcjWriter::new_x86),
        ("powerpc", &[3, 3, 2, 5], BcjWriter::new_ppc),
        ("ia64", &[3, 3, 4, 1], BcjWriter::new_ia64),
        ("arm", &[3, 3, 5, 1], BcjWriter::new_arm),
        ("arm-thumb", &[3, 3, 7, 1], BcjWriter::new_arm_thumb),
        ("sparc", &[3, 3, 8, 5], BcjWriter::new_sparc),
        ("arm64", &[0x0a], BcjWriter::new_arm64),
        ("riscv", &[0x0b], BcjWriter::new_riscv),
    ];
    for (label, method, filter) in filters {
        let mut writer = filter(Vec::new(), 0);
        writer.write_all(content).unwrap();
        let filtered = writer.finish().unwrap();
        variants.push((label, FolderSpec::filtered(method, &[], &filtered, (name, content))));
    }
    variants
}

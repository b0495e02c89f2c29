//! Compound files by [MS-CFB], with one sector of directory and what else is needed of it.

/// Names of storages and streams in UTF-16, and some content.
pub(super) fn compound(names: &[&str], content: &[u8]) -> Vec<u8> {
    let mut file = vec![0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    file.resize(512, 0);
    for name in ["Root Entry"].iter().chain(names) {
        file.extend(entry(name, [0; 16]));
    }
    file.extend(content);
    file
}

/// The root of a compound file of this class.
pub(super) fn entry(name: &str, class: [u8; 16]) -> Vec<u8> {
    let mut entry: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    entry.resize(80, 0);
    entry.extend(class);
    entry.resize(128, 0);
    entry
}

//! Minimal compound files ([MS-CFB]).

/// Returns a compound file with directory entries of these names, followed by `content`.
pub(super) fn compound(names: &[&str], content: &[u8]) -> Vec<u8> {
    let mut file = vec![0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    file.resize(512, 0);
    for name in ["Root Entry"].iter().chain(names) {
        file.extend(entry(name, [0; 16]));
    }
    file.extend(content);
    file
}

/// Returns a directory entry with this name and class id.
pub(super) fn entry(name: &str, class: [u8; 16]) -> Vec<u8> {
    let mut entry: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    entry.resize(80, 0);
    entry.extend(class);
    entry.resize(128, 0);
    entry
}

//! ISO 9660 (ECMA-119), with Joliet and Rock Ridge names, and El Torito boot images. In UDF bridge images, only the ISO
//! 9660 part is read.

mod directory;
mod raw;
mod sector;
mod volume;

use std::collections::HashSet;

use self::{
    directory::{DirectoryRecord, JoinedParts, is_regular, records},
    raw::RawImage,
    sector::SECTOR,
    volume::{Volume, boot_images, volumes},
};
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// Maximum number of directories that wait for being read.
const MAX_PENDING: usize = 65_536;

/// Maximum length of the path of a directory that is kept, bytes. Bounds the memory for the pending directories.
const MAX_DIRECTORY_PATH: usize = 256;

pub(in crate::unpack) const SIGNATURE: ArchiveSignature = ArchiveSignature {
    magic: volume::IDENTIFIER,
    offset: 16 * SECTOR + 1,
    extent: volume::extent,
    is_preferred: true,
};

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    volume::has_descriptor(bytes) || RawImage::detect(bytes).is_some()
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if let Some(image) = RawImage::detect(bytes) {
        return unpacker.decode(EntryName::label("data of the sectors"), image).map(|_decoded| ());
    }
    let mut image = IsoImage {
        bytes,
        directories: HashSet::new(),
        files: HashSet::new(),
        directory_bytes: bytes.len().saturating_mul(2),
        is_regular: volume::has_regular_descriptors(bytes),
    };
    for volume in volumes(bytes) {
        image.volume(&volume, unpacker)?;
    }
    if image.is_regular {
        unpacker.set_read(volume::descriptor_area(bytes));
    } else {
        unpacker.set_doubtful();
    }
    image.boot_images(unpacker)
}

struct IsoImage<'a> {
    bytes: &'a [u8],
    /// Offsets of the directories that were read.
    directories: HashSet<usize>,
    /// Addresses and lengths of the files that were read. The directories of several volumes have the same files.
    files: HashSet<(usize, usize)>,
    /// Number of bytes of directories that may still be read. Only a crafted image has overlapping directories.
    directory_bytes: usize,
    /// Whether 7-Zip reads the image.
    is_regular: bool,
}

/// A directory that is not read yet.
struct PendingDirectory {
    path: Vec<u8>,
    offset: usize,
    length: usize,
}

impl<'a> IsoImage<'a> {
    /// Reads all directories of a volume: those in its tree, and those that only its path table lists.
    fn volume(&mut self, volume: &Volume<'a>, unpacker: &mut Unpacker<'_>) -> Unpacked {
        let root = volume.root();
        self.tree(volume, &root, Vec::new(), unpacker)?;
        for (name, block) in volume.path_table() {
            let offset = volume.offset(block);
            // The first record of a directory describes the directory.
            let sector = self.bytes.get(offset..).unwrap_or_default();
            if self.directories.contains(&offset) || sector.is_empty() {
                continue;
            }
            if let Some(record) = DirectoryRecord::parse(sector)
                && record.is_directory()
                && record.is_self_or_parent()
            {
                self.tree(volume, &record, volume.decode_name(name), unpacker)?;
            }
        }
        Ok(())
    }

    /// Reads a directory and those below it.
    fn tree(
        &mut self,
        volume: &Volume<'a>,
        root: &DirectoryRecord<'a>,
        path: Vec<u8>,
        unpacker: &mut Unpacker<'_>,
    ) -> Unpacked {
        let mut pending = vec![PendingDirectory {
            path,
            offset: volume.record_offset(root),
            length: root.length,
        }];
        while let Some(directory) = pending.pop() {
            if self.directories.insert(directory.offset) {
                self.directory(volume, &directory, &mut pending, unpacker)?;
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        volume: &Volume<'a>,
        directory: &PendingDirectory,
        pending: &mut Vec<PendingDirectory>,
        unpacker: &mut Unpacker<'_>,
    ) -> Unpacked {
        let bytes = self.range(directory.offset, directory.length, unpacker);
        let Some(remaining) = self.directory_bytes.checked_sub(bytes.len()) else {
            unpacker.note(NoteKind::Unreadable, "directories of the image overlap");
            return Ok(());
        };
        self.directory_bytes = remaining;
        self.is_regular &= is_regular(bytes);
        let mut parts = Vec::new();
        for record in records(bytes) {
            let offset = volume.record_offset(&record);
            if record.is_directory() {
                if !record.is_self_or_parent() && !self.directories.contains(&offset) {
                    if pending.len() >= MAX_PENDING {
                        unpacker.note(NoteKind::Limit, "too many directories in the image");
                        continue;
                    }
                    let path = joined(&directory.path, &volume.file_name(&record));
                    pending.push(PendingDirectory { path, offset, length: record.length });
                }
                continue;
            }
            parts.push(self.range(offset, record.length, unpacker));
            if !record.has_more_extents() {
                let parts = std::mem::take(&mut parts);
                let name = joined(&directory.path, &volume.file_name(&record));
                self.file(name, &parts, unpacker)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, name: Vec<u8>, parts: &[&'a [u8]], unpacker: &mut Unpacker<'_>) -> Unpacked {
        let name = EntryName::file(name);
        let [content] = parts else {
            return unpacker.decode(name, JoinedParts::new(parts)).map(|_decoded| ());
        };
        let is_new = self.files.insert((content.as_ptr() as usize, content.len()));
        if content.is_empty() || !is_new { Ok(()) } else { unpacker.slice(name, content) }
    }

    fn boot_images(&mut self, unpacker: &mut Unpacker<'_>) -> Unpacked {
        let mut has_rest = false;
        for (boot_image, rest) in boot_images(self.bytes) {
            let start = boot_image.as_ptr() as usize;
            let is_listed = self.files.iter().any(|file| file.0 == start);
            if self.files.insert((start, boot_image.len())) {
                unpacker.slice(EntryName::label("boot image"), boot_image)?;
            }
            // For 7-Zip, the image ends where the file ends. Of a listed file, the whole content is examined.
            if !is_listed && !has_rest {
                has_rest = true;
                let name = EntryName::label("boot image and the rest");
                unpacker.alternative(|unpacker| unpacker.slice(name, rest))?;
            }
        }
        Ok(())
    }

    /// Returns a range of the image, as far as the image reaches.
    fn range(&self, offset: usize, length: usize, unpacker: &mut Unpacker<'_>) -> &'a [u8] {
        let rest = self.bytes.get(offset..).unwrap_or_default();
        rest.get(..length).unwrap_or_else(|| {
            unpacker.note(NoteKind::Unreadable, "the image is truncated");
            rest
        })
    }
}

/// Appends a name to the path of a directory.
fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let start = path.len().saturating_sub(MAX_DIRECTORY_PATH);
    let mut joined = path.get(start..).unwrap_or_default().to_vec();
    if !joined.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

//! Headers of cabinets, folders and files: [MS-CAB] section 2.1 to 2.3.

use crate::unpack::fields::{u16_at, u32_at};

/// Length of the header without optional fields, bytes.
const HEADER: usize = 36;

const HAS_PREVIOUS: u16 = 1;
const HAS_NEXT: u16 = 2;
const HAS_RESERVED: u16 = 4;

/// Header of a cabinet.
#[derive(Clone, Copy, Debug)]
pub(super) struct CabHeader {
    /// Size of the cabinet, bytes.
    pub(super) size: u32,
    /// Offset of the list of files, bytes.
    files_start: u32,
    folder_count: u16,
    file_count: u16,
    /// Offset of the list of folders, bytes.
    folders_start: usize,
    /// Length of the reserved data of a folder, bytes.
    folder_reserved: usize,
    /// Length of the reserved data of a block, bytes.
    block_reserved: usize,
}

impl CabHeader {
    /// Returns whether the header states at least one folder and one file.
    pub(super) fn has_entries(&self) -> bool {
        self.folder_count > 0 && self.file_count > 0
    }

    pub(super) fn parse(cabinet: &[u8]) -> Option<Self> {
        let flags = u16_at(cabinet, 30)?;
        let mut start = HEADER;
        let (mut folder_reserved, mut block_reserved) = (0, 0);
        if flags & HAS_RESERVED != 0 {
            let header_reserved = usize::from(u16_at(cabinet, start)?);
            folder_reserved = usize::from(*cabinet.get(start + 2)?);
            block_reserved = usize::from(*cabinet.get(start + 3)?);
            start += 4 + header_reserved;
        }
        // The names of the cabinet before and of the one after it, and of their disks.
        for flag in [HAS_PREVIOUS, HAS_NEXT] {
            for _ in 0..if flags & flag == 0 { 0 } else { 2 } {
                start += text_at(cabinet, start)?.len() + 1;
            }
        }
        // 7-Zip ignores the version.
        Some(Self {
            size: u32_at(cabinet, 8)?,
            files_start: u32_at(cabinet, 16)?,
            folder_count: u16_at(cabinet, 26)?,
            file_count: u16_at(cabinet, 28)?,
            folders_start: start,
            folder_reserved,
            block_reserved,
        })
    }

    /// Returns the folders up to the first one outside of the cabinet, and whether these are all.
    pub(super) fn folders(&self, cabinet: &[u8]) -> (Vec<CabFolder>, bool) {
        let length = 8 + self.folder_reserved;
        let folders = (0..usize::from(self.folder_count)).map_while(|index| {
            let start = self.folders_start + index * length;
            Some(CabFolder {
                data_start: u32_at(cabinet, start)?,
                block_count: u16_at(cabinet, start + 4)?,
                method: u16_at(cabinet, start + 6)?,
                reserved: self.block_reserved,
            })
        });
        let folders: Vec<_> = folders.collect();
        let is_complete = folders.len() == usize::from(self.folder_count);
        (folders, is_complete)
    }

    /// Returns the files up to the first one outside of the cabinet, and whether these are all.
    pub(super) fn files<'c>(&self, cabinet: &'c [u8]) -> (Vec<CabFile<'c>>, bool) {
        let mut start = usize::try_from(self.files_start).unwrap_or(usize::MAX);
        let files = (0..self.file_count).map_while(|_| {
            let file = CabFile::parse(cabinet, start)?;
            start = start.saturating_add(17 + file.name.len());
            Some(file)
        });
        let files: Vec<_> = files.collect();
        let is_complete = files.len() == usize::from(self.file_count);
        (files, is_complete)
    }
}

/// A folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct CabFolder {
    /// Offset of the first block, bytes.
    pub(super) data_start: u32,
    pub(super) block_count: u16,
    pub(super) method: u16,
    /// Length of the reserved data of a block, bytes.
    pub(super) reserved: usize,
}

/// A file.
#[derive(Clone, Copy, Debug)]
pub(super) struct CabFile<'c> {
    pub(super) name: &'c [u8],
    pub(super) folder: CabFolderIndex,
    /// Offset in the output of the folder, bytes.
    pub(super) start: u64,
    /// Bytes.
    pub(super) size: u64,
}

/// The folder of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CabFolderIndex {
    Index(usize),
    /// The file is continued from the cabinet before this one.
    Continued,
    /// The file is in the last folder, and is continued in the next cabinet.
    Last,
}

impl<'c> CabFile<'c> {
    fn parse(cabinet: &'c [u8], start: usize) -> Option<Self> {
        let field = |offset: usize| start.checked_add(offset);
        let folder = match u16_at(cabinet, field(8)?)? {
            0xfffd | 0xffff => CabFolderIndex::Continued,
            0xfffe => CabFolderIndex::Last,
            index => CabFolderIndex::Index(index.into()),
        };
        Some(Self {
            name: text_at(cabinet, field(16)?)?,
            folder,
            start: u32_at(cabinet, field(4)?)?.into(),
            size: u32_at(cabinet, start)?.into(),
        })
    }
}

/// Returns the text at `offset`, without the zero at its end.
fn text_at(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    /// Of names, as in libarchive; the specification allows 255.
    const MAX_LENGTH: usize = 4096;
    let rest = bytes.get(offset..)?;
    let rest = rest.get(..MAX_LENGTH).unwrap_or(rest);
    let end = rest.iter().position(|byte| *byte == 0)?;
    rest.get(..end)
}

//! Examines the files of a folder.

use std::io::{self, Read};

use super::{
    super::checked::Checked,
    files::SevenFiles,
    folder::SevenFolder,
    header_reader::SevenDefect,
    streams::{SevenStreams, SubStream},
};
use crate::{
    report::NoteKind,
    unpack::{
        name::EntryName,
        unpacker::{Unpacked, Unpacker, WalkEnd},
    },
};

/// Maximum number of bytes of files above a limit that are decoded to reach the files after them in their folder.
const MAX_SKIPPED: u64 = 64 << 20;

/// The lists of an archive, with cursors at the next file.
pub(super) struct FileLists<'h> {
    pub(super) streams: SevenStreams<'h>,
    files: SevenFiles<'h>,
    /// Bytes of files above a limit that may still be decoded.
    skipped: u64,
}

impl<'h> FileLists<'h> {
    pub(super) fn new(streams: SevenStreams<'h>, files: SevenFiles<'h>) -> Self {
        Self { streams, files, skipped: MAX_SKIPPED }
    }
}

/// Returns a reader of a folder and the memory that it needs, or notes why there is none.
pub(super) fn open<'d>(
    data: &'d [u8],
    folder: &SevenFolder<'_>,
    unpacker: &mut Unpacker<'_>,
) -> Option<(Box<dyn Read + 'd>, usize)> {
    if folder.is_encrypted() {
        note_defect(SevenDefect::Encrypted, unpacker);
        return None;
    }
    if folder.is_unusual() {
        unpacker.note(NoteKind::Inconsistent, "a method in a 7z archive that only 7-Zip unpacks");
        return None;
    }
    let opened = folder.window().and_then(|window| Ok((folder.open(data)?, window)));
    opened.inspect_err(|error| unpacker.note_error(error)).ok()
}

/// Examines the files of a folder, and advances the lists behind them. Programs unpack nothing from a folder without
/// files.
pub(super) fn examine_folder(
    data: &[u8],
    folder: &SevenFolder<'_>,
    lists: &mut FileLists<'_>,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    if folder.file_count == 0 {
        return Ok(());
    }
    let (decoder, window) = open(data, folder, unpacker).unzip();
    unpacker.with_window(window.unwrap_or_default(), |unpacker| {
        let mut decoder = decoder;
        let mut used: u64 = 0;
        let mut is_decoded = true;
        for index in 0..folder.file_count {
            let file = match lists.streams.next_file(folder, index, used) {
                Ok(file) => file,
                Err(defect) => {
                    note_defect(defect, unpacker);
                    return Ok(());
                }
            };
            used = used.saturating_add(file.size);
            let name = lists.files.next();
            if let Some(reader) = &mut decoder
                && file.size > 0
                && !examine_file(reader, file, name, &mut lists.skipped, unpacker)?
            {
                decoder = None;
                is_decoded = false;
            }
        }
        if is_decoded {
            folder.packed(data).for_each(|pack| unpacker.set_decoded(pack));
        }
        Ok(())
    })
}

/// Examines a file. Returns whether the file after it can be read.
fn examine_file(
    decoder: &mut impl Read,
    file: SubStream,
    name: EntryName,
    skipped: &mut u64,
    unpacker: &mut Unpacker<'_>,
) -> Result<bool, WalkEnd> {
    let mut checked = Checked::new(decoder.by_ref().take(file.size), file.crc.as_slice());
    unpacker.decode(name, &mut checked)?;
    let (size, is_complete) = (checked.size, checked.is_complete);
    if checked.error.is_some() {
        return Ok(false);
    }
    let rest = file.size.saturating_sub(size);
    if is_complete && rest > 0 {
        unpacker.note(NoteKind::Unreadable, "a file in a 7z archive is truncated");
        return Ok(false);
    }
    let Some(remaining) = skipped.checked_sub(rest) else { return Ok(false) };
    *skipped = remaining;
    Ok(io::copy(&mut decoder.take(rest), &mut io::sink()).is_ok_and(|length| length == rest))
}

/// Notes why a header or a folder is not read.
pub(super) fn note_defect(defect: SevenDefect, unpacker: &mut Unpacker<'_>) {
    let (kind, reason) = match defect {
        SevenDefect::Damaged => (NoteKind::Unreadable, "the header of a 7z archive is damaged"),
        SevenDefect::Encrypted => (NoteKind::Encrypted, "7z archive"),
        SevenDefect::External => {
            (NoteKind::Inconsistent, "a part of a 7z header that only 7-Zip reads")
        }
    };
    unpacker.note(kind, reason);
}

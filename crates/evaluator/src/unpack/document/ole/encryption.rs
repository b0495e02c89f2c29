//! Streams of encrypted documents.

use super::{
    compound::{u16_at, u32_at},
    content::StreamContent,
};

/// Number of bytes of a workbook that are examined. `FilePass` is one of the first records, but records of up to 8 KiB
/// may precede it.
const WORKBOOK_START: usize = 64 << 10;

/// Returns whether a stream with this name, in upper case, is part of an encrypted document ([MS-OFFCRYPTO] 2.3,
/// [MS-DOC] 2.5.2, [MS-XLS] 2.4.117, [MS-PPT] 2.3.2).
pub(super) fn is_encrypted(name: &str, content: &StreamContent<'_>) -> bool {
    match name {
        // The second is a document with restricted rights.
        "ENCRYPTEDPACKAGE" | "\tDRMCONTENT" => true,
        "WORDDOCUMENT" => {
            const ENCRYPTED: u16 = 0x100;
            let header = content.copy(0, 12);
            matches!(u16_at(&header, 0), 0xa5dc | 0xa5ec) && u16_at(&header, 10) & ENCRYPTED != 0
        }
        "WORKBOOK" | "BOOK" => has_file_pass(&content.copy(0, WORKBOOK_START)),
        // headerToken of CurrentUserAtom.
        "CURRENT USER" => u32_at(&content.copy(0, 16), 12) == 0xf3d1_c4df,
        _ => false,
    }
}

/// Returns whether a `FilePass` record is among the records of a workbook before the first sheet.
fn has_file_pass(workbook: &[u8]) -> bool {
    const EOF: u16 = 0x0a;
    const FILE_PASS: u16 = 0x2f;
    const BOUND_SHEET: u16 = 0x85;
    // Beginning of a file of any version.
    if !matches!(u16_at(workbook, 0), 0x0009 | 0x0209 | 0x0409 | 0x0809) {
        return false;
    }
    let mut rest = workbook;
    while let Some((header, after)) = rest.split_at_checked(4) {
        match u16_at(header, 0) {
            FILE_PASS => return true,
            BOUND_SHEET | EOF => return false,
            _ => rest = after.get(usize::from(u16_at(header, 2))..).unwrap_or_default(),
        }
    }
    false
}

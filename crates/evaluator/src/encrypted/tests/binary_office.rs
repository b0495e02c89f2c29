//! Generated OLE containers.

use super::*;

const END: u32 = 0xffff_fffe;

/// Builds a container with these streams. The directory is fragmented. Streams below 4096 bytes are in the mini stream.
fn container(shift: u16, streams: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let sector = 1 << shift;
    let (mut mini, mut mini_table) = (Vec::new(), Vec::<u32>::new());
    let mut sectors: Vec<Vec<u8>> = vec![vec![0xff; sector]];
    let mut table: Vec<u32> = vec![0xffff_fffd];
    let mut entries = vec![entry("Root Entry", 5, END, 0)];
    for (name, bytes) in streams {
        let size = u32::try_from(bytes.len()).unwrap();
        if bytes.len() < 4096 {
            let first = u32::try_from(mini.len() / 64).unwrap();
            mini.extend_from_slice(bytes);
            mini.resize(mini.len().next_multiple_of(64), 0);
            let last = u32::try_from(mini.len() / 64).unwrap();
            mini_table.extend((first + 1..last).chain([END]));
            entries.push(entry(name, 2, first, size));
        } else {
            let first = chain(&mut sectors, &mut table, bytes, sector);
            entries.push(entry(name, 2, first, size));
        }
    }
    let mini_table: Vec<u8> = mini_table.into_iter().flat_map(u32::to_le_bytes).collect();
    let mini_table = chain(&mut sectors, &mut table, &mini_table, sector);
    let first = chain(&mut sectors, &mut table, &mini, sector);
    entries[0] = entry("Root Entry", 5, first, u32::try_from(mini.len()).unwrap());
    // Written in reverse order.
    let directory = entries.concat();
    let mut next = END;
    for piece in directory.chunks(sector).rev() {
        let index = u32::try_from(sectors.len()).unwrap();
        let mut piece = piece.to_vec();
        piece.resize(sector, 0);
        sectors.push(piece);
        table.push(next);
        next = index;
    }
    for (index, value) in table.iter().enumerate() {
        sectors[0][4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
    }
    let mut header = ole::SIGNATURE.to_vec();
    header.resize(sector, 0);
    header[30..32].copy_from_slice(&shift.to_le_bytes());
    header[48..52].copy_from_slice(&next.to_le_bytes());
    header[56..60].copy_from_slice(&4096_u32.to_le_bytes());
    header[60..64].copy_from_slice(&mini_table.to_le_bytes());
    header[68..72].copy_from_slice(&END.to_le_bytes());
    header[76..512].fill(0xff);
    header[76..80].copy_from_slice(&0_u32.to_le_bytes());
    [header, sectors.concat()].concat()
}

fn chain(sectors: &mut Vec<Vec<u8>>, table: &mut Vec<u32>, bytes: &[u8], sector: usize) -> u32 {
    let first = u32::try_from(sectors.len()).unwrap();
    let count = bytes.len().div_ceil(sector);
    for (number, piece) in bytes.chunks(sector).enumerate() {
        let mut piece = piece.to_vec();
        piece.resize(sector, 0);
        sectors.push(piece);
        let next = first + u32::try_from(number).unwrap() + 1;
        table.push(if number + 1 == count { END } else { next });
    }
    if count == 0 { END } else { first }
}

fn entry(name: &str, kind: u8, first: u32, size: u32) -> Vec<u8> {
    let mut entry: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let length = u16::try_from(entry.len() + 2).unwrap();
    entry.resize(128, 0);
    entry[64..66].copy_from_slice(&length.to_le_bytes());
    entry[66] = kind;
    entry[68..80].fill(0xff);
    entry[116..120].copy_from_slice(&first.to_le_bytes());
    entry[120..124].copy_from_slice(&size.to_le_bytes());
    entry
}

fn padded(mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    bytes.resize(length, 0);
    bytes
}

fn word_document(flags: u16) -> Vec<u8> {
    [&0xa5ec_u16.to_le_bytes()[..], &[0; 8], &flags.to_le_bytes()].concat()
}

/// Builds a BOF record, followed by records of these types.
fn workbook(records: &[u16]) -> Vec<u8> {
    let bof = [&0x0809_u16.to_le_bytes()[..], &16_u16.to_le_bytes(), &[0; 16]].concat();
    let record = |kind: &u16| [kind.to_le_bytes(), [2, 0], [0, 0]].concat();
    [bof, records.iter().flat_map(record).collect()].concat()
}

fn current_user(token: u32) -> Vec<u8> {
    [&[0; 12][..], &token.to_le_bytes(), &[0; 20]].concat()
}

#[test]
fn detects_encrypted_binary_documents() {
    for (name, encrypted, plain, expected) in [
        ("WordDocument", word_document(0x0100), word_document(0x1200), Word),
        ("Workbook", workbook(&[0x86, 0x2f]), workbook(&[0x86, 0xe1, 0xc1]), Excel),
        ("Book", workbook(&[0x2f]), workbook(&[]), Excel),
        ("Current User", current_user(0xf3d1_c4df), current_user(0xe391_c05f), PowerPoint),
    ] {
        for shift in [9, 12] {
            for length in [100, 5000] {
                let examine_with_others = |bytes: Vec<u8>| {
                    let other = |name| (name, vec![1; 200]);
                    let mut streams: Vec<_> = ["1", "2", "3", "4", "5", "6"].map(other).into();
                    streams.push((name, padded(bytes, length)));
                    examine(&container(shift, &streams))
                };
                assert_eq!(
                    examine_with_others(encrypted.clone()),
                    Some(expected),
                    "{name} {shift} {length}"
                );
                assert_eq!(examine_with_others(plain.clone()), None, "{name} {shift} {length}");
            }
        }
    }
}

/// Builds a BOF record, a record of `length` bytes, and records of these types.
fn workbook_with_gap(length: u16, records: &[u16]) -> Vec<u8> {
    let gap = [0x5c_u16, length].map(u16::to_le_bytes).concat();
    let gap = padded(gap, 4 + usize::from(length));
    let mut workbook = workbook(records);
    workbook.splice(20..20, gap);
    workbook
}

#[test]
fn follows_workbook_records_to_first_sheet() {
    for shift in [9, 12] {
        for length in [0, 60, 112, 500, 3000, 8224, 30_000] {
            let examine_workbook = |records: &[u16]| {
                let workbook = workbook_with_gap(length, records);
                examine(&container(shift, &[("other", vec![1; 200]), ("Workbook", workbook)]))
            };
            assert_eq!(examine_workbook(&[0xe1, 0x2f]), Some(Excel), "{shift} {length}");
            for end in [0x85, 0x0a] {
                assert_eq!(examine_workbook(&[0xe1, end, 0x2f]), None, "{shift} {length}");
            }
        }
    }
}

#[test]
fn detects_encrypted_document_among_many_plain_ones() {
    let plain = (0..300).map(|_| ("WordDocument", padded(word_document(0), 64)));
    let streams: Vec<_> =
        plain.chain([("WordDocument", padded(word_document(0x100), 64))]).collect();
    assert_eq!(examine(&container(12, &streams)), Some(Word));
}

#[test]
fn detects_encrypted_packages_by_stream_name() {
    for (name, expected) in [
        ("EncryptedPackage", Some(OlePackage)),
        ("ENCRYPTEDpackage", Some(OlePackage)),
        ("EncryptionInfo", Some(OlePackage)),
        ("\tDRMContent", Some(OleRights)),
        ("EncryptedPackage2", None),
        ("Package", None),
    ] {
        for shift in [9, 12] {
            let others = (0..40).map(|_| ("other", vec![1; 10]));
            let streams: Vec<_> = others.chain([(name, vec![2; 10])]).collect();
            assert_eq!(examine(&container(shift, &streams)), expected, "{name} {shift}");
        }
    }
}

#[test]
fn cyclic_sector_chain_terminates() {
    let mut bytes = container(9, &[("a", vec![1; 10]), ("b", vec![1; 10])]);
    // Every sector is its own successor.
    for index in 0_u32..128 {
        let place = 512 + 4 * index as usize;
        bytes[place..place + 4].copy_from_slice(&index.to_le_bytes());
    }
    assert_eq!(examine(&bytes), None);
    // The header lists no sectors of the table.
    bytes[76..512].fill(0xff);
    assert_eq!(examine(&bytes), None);
}

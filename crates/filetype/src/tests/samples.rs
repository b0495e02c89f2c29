//! Small files of many types.

use crate::corrections::OLE_SIGNATURE;

/// OLE document with these streams.
pub(super) fn ole(streams: &[&str]) -> Vec<u8> {
    let mut file = [OLE_SIGNATURE, &[0; 22], &[9, 0], &[0; 16], &[0; 4]].concat();
    file.resize(512, 0);
    for name in ["Root Entry"].iter().chain(streams) {
        let mut entry: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        entry.resize(128, 0);
        file.extend(entry);
    }
    file
}

/// 64-bit ELF file with two program headers, and the dynamic section at the offset `dynamic`.
pub(super) fn elf(dynamic: usize, flags: u64) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    for word in [0_u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [0_u16, 0, 64, 56, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for (kind, offset, len) in [(1_u64, 0, 0), (2, dynamic as u64, 32)] {
        for word in [kind, offset, 0, 0, len, len, 8] {
            file.extend(word.to_le_bytes());
        }
    }
    file.resize(dynamic, 0);
    for word in [1, 1, 0x6fff_fffb, flags] {
        file.extend(word.to_le_bytes());
    }
    file
}

/// Windows program.
pub(super) fn pe() -> Vec<u8> {
    let mut file = b"MZ".to_vec();
    file.resize(60, 0);
    file.extend(b"\x80\0\0\0");
    file.resize(128, 0);
    file.extend(b"PE\0\0\x64\x86\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\xf0\0\x22\0\x0b\x02");
    file.resize(600, 0);
    file
}

/// Archive with one empty file.
fn tar() -> Vec<u8> {
    let mut file = b"a.txt".to_vec();
    file.resize(100, 0);
    file.extend(b"0000644\x000000000\x000000000\x0000000000000\x0000000000000\0");
    file.extend([b' '; 8]);
    file.extend(b"0");
    file.resize(257, 0);
    file.extend(b"ustar\x0000");
    file.resize(512, 0);
    let sum: u32 = file.iter().map(|b| u32::from(*b)).sum();
    file.splice(148..156, format!("{sum:06o}\0 ").into_bytes());
    file.resize(2048, 0);
    file
}

/// Local header and content of one stored file.
pub(super) fn zip(name: &str, content: &str) -> Vec<u8> {
    let mut file = b"PK\x03\x04\x0a\0\0\0\0\0\0\0\x21\0\0\0\0\0".to_vec();
    for len in [content.len(), content.len()] {
        file.extend(u32::try_from(len).unwrap().to_le_bytes());
    }
    file.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
    file.extend([0, 0]);
    file.extend(name.bytes().chain(content.bytes()));
    file
}

fn utf16(text: &str) -> Vec<u8> {
    [b'\xff', b'\xfe'].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

/// Returns the beginnings of files that users send, with their types.
pub(super) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let s = |bytes: &[u8]| bytes.to_vec();
    let latin = s(b"Gr\xfc\xdfe aus K\xf6ln, und ein Caf\xe9\n");
    vec![
        ("image/png", s(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0")),
        ("image/jpeg", s(b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0")),
        ("image/gif", s(b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0")),
        ("image/webp", s(b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0\x30\x01\0\x9d\x01\x2a\x01\0\x01\0")),
        ("image/avif", s(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf")),
        ("image/heic", s(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")),
        ("image/svg+xml", s(b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>")),
        ("video/mp4", s(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41")),
        ("video/quicktime", s(b"\0\0\0\x14ftypqt  \0\0\x02\0qt  ")),
        ("video/webm", s(b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm")),
        ("video/x-matroska", s(b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x88matroska")),
        ("audio/mpeg", s(b"ID3\x04\0\0\0\0\0\x0aTSSE\0\0\0\0\0\0\xff\xfb\x90\x64\0\0\0\0\0\0\0\0")),
        ("audio/flac", s(b"fLaC\0\0\0\x22\x12\0\x12\0\0\0\0\0\0\0\x0a\xc4\x42\xf0")),
        ("audio/x-wav", s(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x44\xac\0\0")),
        ("audio/ogg", s(b"OggS\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead\x01\x02")),
        ("application/pdf", s(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n")),
        ("application/msword", ole(&["WordDocument"])),
        ("application/vnd.ms-excel", ole(&["Workbook"])),
        ("application/vnd.oasis.opendocument.text", zip("mimetype", "application/vnd.oasis.opendocument.text")),
        ("application/epub+zip", zip("mimetype", "application/epub+zip")),
        ("application/zip", zip("a.txt", "hello")),
        ("application/gzip", s(b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcbH\xcd\xc9\xc9\x07\0\x86\xa6\x106\x05\0\0\0")),
        ("application/x-7z-compressed", s(b"7z\xbc\xaf\x27\x1c\0\x04\x8d\x9b\xd5\x0f\0\0\0\0")),
        ("application/x-tar", tar()),
        ("application/x-mach-binary", s(b"\xcf\xfa\xed\xfe\x07\0\0\x01\x03\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")),
        ("application/vnd.microsoft.portable-executable", pe()),
        ("application/x-pie-executable", elf(200, 0x0800_0001)),
        ("application/x-sharedlib", elf(200, 1)),
        ("application/wasm", s(b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0")),
        ("text/x-shellscript", s(b"#!/bin/sh\necho hello\n")),
        ("text/x-script.python", s(b"#!/usr/bin/env python3\nprint(1)\n")),
        ("text/x-perl", s(b"#!/usr/bin/perl\nprint 1;\n")),
        ("text/html", s(b"<!DOCTYPE html>\n<html><body>x</body></html>\n")),
        ("text/html", utf16("<!DOCTYPE html>\n<html><body>x</body></html>\n")),
        ("text/xml", s(b"<?xml version=\"1.0\"?>\n<a><b/></a>\n")),
        ("application/json", s(b"{\"a\": [1, 2, {\"b\": null}]}\n")),
        ("text/csv", s(b"a,b,c\n1,2,3\n4,5,6\n")),
        ("text/plain", s(b"hello world\n")),
        ("text/plain", s("Gr\u{fc}\u{df}e, \u{4e16}\u{754c}! \u{1f600}\n".as_bytes())),
        ("text/plain", utf16("Gr\u{fc}\u{df}e\n")),
        ("text/plain", latin),
        // The EICAR test file, in two parts so that virus scanners do not detect this source file.
        ("text/plain", [&b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD"[..], b"-ANTIVIRUS-TEST-FILE!$H+H*"].concat()),
        ("application/octet-stream", s(&[0; 100])),
        ("application/octet-stream", s(b"\x8a\x01\x9c\xf3\x02\xe7\x15\x06\xb0\x91\x1c\x80\xff\x03")),
    ]
}

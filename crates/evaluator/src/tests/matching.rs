//! Files that the supplied rules must match, built from the specifications of their formats. Every rule needs a file
//! here.

use std::collections::BTreeSet;

use super::{
    SUPPLIED, assert_matches,
    office::{compound, entry},
    zip::zip,
};

/// Reversed, because scanners would report this source file otherwise.
const EICAR_REVERSED: &[u8] =
    b"*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE$}7)CC7)^P(45XZP\\4[PA@%P!O5X";

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0";
const GIF: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0";
const MP4: &[u8] = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42";

/// A description, the content of a file, and the rules that match.
type MatchingFile = (&'static str, Vec<u8>, &'static [&'static str]);

fn windows_program() -> Vec<u8> {
    let mut program = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0".to_vec();
    program.resize(0x3c, 0);
    program.extend(0x80_u32.to_le_bytes());
    program.resize(0x80, 0);
    // Signature, and COFF header for x86-64 with an optional header of 240 bytes (PE32+).
    program.extend(b"PE\0\0\x64\x86\x06\0");
    program.extend([0; 12]);
    program.extend([0xf0, 0, 0x22, 0, 0x0b, 0x02]);
    program.resize(1024, 0);
    program
}

fn linux_program() -> Vec<u8> {
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    program.resize(1024, 0);
    program
}

fn mac_program() -> Vec<u8> {
    let mut program = b"\xcf\xfa\xed\xfe\x0c\0\0\x01\0\0\0\0\x02\0\0\0".to_vec();
    program.resize(1024, 0);
    program
}

fn at(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0; offset];
    file.extend(bytes);
    file.resize(file.len() + 4096, 0);
    file
}

fn trailer(bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![1; 4096];
    file.extend(bytes);
    file.resize(4096 + 512, 0);
    file
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn pdf(objects: &str) -> Vec<u8> {
    format!("%PDF-1.7\n1 0 obj\n<</Type /Catalog /Pages 2 0 R {objects}>>\nendobj\n").into_bytes()
}

fn programs() -> Vec<MatchingFile> {
    let mut dos = b"MZ\x10\0\x02\0\0\0\x02\0\0\0\xff\xff\0\0".to_vec();
    dos.resize(600, 0x90);
    let android = zip(&[("AndroidManifest.xml", b"\x03\0"), ("classes.dex", b"dex\n")]);
    let jar = zip(&[("META-INF/MANIFEST.MF", b"Manifest-Version: 1.0"), ("a/Main.class", b"x")]);
    let installer = *b"\x84\x10\x0c\0\0\0\0\0\xc0\0\0\0\0\0\0\x46";
    let mut msi = compound(&[], b"");
    msi.truncate(512);
    msi.extend(entry("Root Entry", installer));
    let mut snap = b"hsqs".to_vec();
    snap.resize(28, 0);
    snap.extend([4, 0, 0, 0]);
    vec![
        ("a PE program", windows_program(), &["Windows_Program"]),
        ("a DOS program", dos, &["DOS_Program"]),
        ("an ELF program", linux_program(), &["Linux_Program"]),
        ("a Mach-O program", mac_program(), &["Mac_Program"]),
        (
            "a universal Mach-O program",
            b"\xca\xfe\xba\xbe\0\0\0\x02\x01\0\0\x07".to_vec(),
            &["Mac_Program"],
        ),
        ("a Java class", b"\xca\xfe\xba\xbe\0\0\0\x34\0\x10".to_vec(), &["Java_Program"]),
        ("a JAR", jar, &["Java_Program"]),
        ("an APK", android, &["Android_Program"]),
        ("Dalvik bytecode", b"dex\n035\0rest".to_vec(), &["Android_Program"]),
        ("a shell script", b"#!/bin/sh\necho\n".to_vec(), &["Script_With_Interpreter"]),
        ("a Python script", b"#! /usr/bin/env python3\n".to_vec(), &["Script_With_Interpreter"]),
        ("a batch file", b"@Echo OFF\r\ndel *\r\n".to_vec(), &["Windows_Batch_File"]),
        ("an encoded script", b"#@~^XAAAAA==".to_vec(), &["Encoded_Windows_Script"]),
        ("an MSI", msi, &["Windows_Installer"]),
        ("an MSIX", zip(&[("AppxBlockMap.xml", b"<")]), &["Windows_App_Package"]),
        (
            "an app installer",
            b"<?xml version=\"1.0\"?>\n<AppInstaller Uri=\"x\">".to_vec(),
            &["Windows_App_Package"],
        ),
        ("a DEB", b"!<arch>\ndebian-binary   0 ".to_vec(), &["Linux_Package"]),
        ("an RPM", b"\xed\xab\xee\xdb\x03\0".to_vec(), &["Linux_Package"]),
        ("a Snap", snap, &["Linux_Package"]),
        ("a PKG", b"xar!\0\x1c\0\x01".to_vec(), &["Mac_Installer"]),
        ("an AppleScript", b"FasdUAS 1.101.10".to_vec(), &["Mac_Installer"]),
        ("a CRX", b"Cr24\x03\0\0\0".to_vec(), &["Browser_Extension"]),
        (
            "the EICAR test file",
            EICAR_REVERSED.iter().rev().copied().collect(),
            &["EICAR_Test_File"],
        ),
    ]
}

fn disguised() -> Vec<MatchingFile> {
    let archive = zip(&[("a.txt", b"text")]);
    let page = b"<script>alert(1)</script>";
    let mut files: Vec<MatchingFile> = Vec::new();
    for (description, start) in [
        ("PNG", PNG),
        ("JPEG", JPEG),
        ("GIF", GIF),
        ("MP4", MP4),
        ("PDF", b"%PDF-1.4\n"),
        ("RTF", b"{\\rtf1 "),
    ] {
        for program in [windows_program(), linux_program(), mac_program()] {
            files.push((description, [start, &program].concat(), &["Disguised_Program"]));
        }
    }
    files.push(("an OLE file", compound(&["Ole"], &windows_program()), &["Disguised_Program"]));
    for (description, start) in [("PNG", PNG), ("JPEG", JPEG), ("GIF", GIF), ("MP4", MP4)] {
        files.push((description, [start, &archive].concat(), &["Disguised_Archive"]));
        files.push((description, [start, b"Rar!\x1a\x07\x01\0"].concat(), &["Disguised_Archive"]));
        files.push((
            description,
            [start, b"7z\xbc\xaf\x27\x1c\0\x04"].concat(),
            &["Disguised_Archive"],
        ));
        files.push((description, [start, b"\xfd7zXZ\0\0\x04"].concat(), &["Disguised_Archive"]));
        let cabinet = b"MSCF\0\0\0\0\x10\0\0\0\0\0\0\0\x2c\0\0\0\0\0\0\0\x03\x01";
        files.push((description, [start, cabinet].concat(), &["Disguised_Archive"]));
        files.push((description, [start, b"%PDF-1.7\n"].concat(), &["Disguised_Document"]));
    }
    files.push(("PNG with a page", [PNG, page].concat(), &["Disguised_Page"]));
    files.push((
        "a GIF that is a script",
        b"GIF89a/*\x01\0\x01\0*/ =1;alert(1)".to_vec(),
        &["Disguised_Script"],
    ));
    files.push((
        "base64",
        b"var x = 'TVqQAAMAAAAEAAAA//8AALgAAAA'".to_vec(),
        &["Text_Carries_Program"],
    ));
    files.push((
        "hexadecimal",
        b"4D5A90000300000004000000FFFF0000B8".to_vec(),
        &["Text_Carries_Program"],
    ));
    files
}

fn office_documents() -> Vec<MatchingFile> {
    const VBA: &[&str] = &["Macros", "VBA", "_VBA_PROJECT"];
    let automatic: &[&str] = &["Office_Macros_That_Run_By_Themselves"];
    let docx = |name| zip(&[("[Content_Types].xml", b"<"), (name, b"x")]);
    let odt = |name| zip(&[("mimetype", b"application/vnd.oasis.opendocument.text"), (name, b"x")]);
    // [MS-XLS]: BOUNDSHEET8 of a macro sheet; Lbl with the built-in name Auto_Open.
    let sheet = b"\x85\0\x0e\0\x10\x20\0\0\0\x01\x06\0Macro1";
    let name = b"\x18\0\x17\0\x20\0\0\x01\x07\0\0\0\x01\0\0\0\0\0\0\x01\x3a\0\0\0\0";
    vec![
        ("a macro that runs when opened", compound(VBA, b"Sub AutoOpen()"), automatic),
        ("an upper-case macro", compound(VBA, b"SUB DOCUMENT_OPEN()"), automatic),
        ("a compressed macro", compound(VBA, b"Sub Auto\x08Open()"), automatic),
        (
            "a macro with other compression tokens",
            compound(VBA, b"Wor\x01kbook_Op\x02en()"),
            automatic,
        ),
        ("docm", docx("word/vbaProject.bin"), &["Office_Macros"]),
        ("xlsm", docx("xl/vbaProject.bin"), &["Office_Macros"]),
        ("Excel 4 in XML", docx("xl/macrosheets/sheet1.xml"), &["Office_Macros"]),
        ("ActiveX", docx("word/activeX/activeX1.bin"), &["Office_ActiveX"]),
        (
            "Excel 4",
            compound(&["Workbook"], &[&sheet[..], name].concat()),
            &["Excel4_Macros_That_Run_By_Themselves"],
        ),
        ("ODT with Basic", odt("Basic/Standard/Module1.xml"), &["OpenDocument_Macros"]),
        ("ODT with Python", odt("Scripts/python/a.py"), &["OpenDocument_Macros"]),
        (
            "a DDE field",
            compound(&["WordDocument"], b"\x13 DDEAUTO c:\\\\windows"),
            &["Document_Runs_Command"],
        ),
        (
            "a UTF-16 DDE field",
            compound(&["WordDocument"], &wide("\x13 DDEAUTO c:\\\\")),
            &["Document_Runs_Command"],
        ),
        (
            "a DDE field in RTF",
            b"{\\rtf1{\\field{\\*\\fldinst {\\rtlch DDEAUTO c:\\\\x}}}".to_vec(),
            &["Document_Runs_Command"],
        ),
        (
            "an RTF object",
            b"{\\rtf1{\\object\\objupdate{\\*\\objdata 01}}".to_vec(),
            &["RTF_Object_That_Loads_Itself"],
        ),
        (
            "a remote template in RTF",
            b"{\\rtf1{\\*\\template https://example.org/a.dotm}}".to_vec(),
            &["Document_Loads_Template"],
        ),
        (
            "a packaged script",
            compound(&["\x01Ole10Native"], b"\x02\0invoice.js\0"),
            &["Document_Carries_Program_File"],
        ),
    ]
}

fn pdf_documents() -> Vec<MatchingFile> {
    vec![
        (
            "a PDF with a program",
            pdf("/Type/EmbeddedFile>> <</F (a.exe)"),
            &["Document_Carries_Program_File"],
        ),
        (
            "a PDF that exports a program",
            pdf("/Type/EmbeddedFile /x (this.exportDataObject({cName:1}))"),
            &["Document_Carries_Program_File"],
        ),
        (
            "a PDF with a script",
            pdf("/OpenAction <</Type/Action/S /JavaScript /JS (x)>>"),
            &["PDF_Runs_Code"],
        ),
        (
            "a PDF page with a script",
            pdf("/AA <</O <</S /JavaScript /JS (x)>>>>"),
            &["PDF_Runs_Code"],
        ),
        (
            "a PDF with an indirect script",
            pdf("/OpenAction 4 0 R>> 4 0 obj <</S/JavaScript/JS(x)"),
            &["PDF_Runs_Code"],
        ),
        ("a PDF with a list of scripts", pdf("/Names <</JavaScript 5 0 R>>"), &["PDF_Runs_Code"]),
        (
            "a PDF with a direct list of scripts",
            pdf("/Names<</JavaScript<</Names[]>>>>"),
            &["PDF_Runs_Code"],
        ),
        (
            "a PDF with a command",
            pdf("/OpenAction<</S/Launch/Win<</F(cmd)>>>>"),
            &["PDF_Starts_Program"],
        ),
        ("an escaped name", pdf("/S /J#61vaScript"), &["PDF_Hides_Names"]),
        (
            "a name with an escaped last character",
            pdf("/S /JavaScrip#74 /JS"),
            &["PDF_Hides_Names"],
        ),
        ("two escaped characters", pdf("/#4a#53 (x)"), &["PDF_Hides_Names"]),
    ]
}

fn delivered() -> Vec<MatchingFile> {
    let shortcut = b"\x4c\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0\x46\x9b\0\x08\0";
    let registry =
        [b"\xff\xfe".to_vec(), wide("Windows Registry Editor Version 5.00\r\n")].concat();
    vec![
        ("LNK", shortcut.to_vec(), &["Windows_Shortcut"]),
        ("URL", b"[InternetShortcut]\r\nURL=file://h/x.exe".to_vec(), &["Internet_Shortcut"]),
        (
            "DESKTOP",
            b"[Desktop Entry]\nType=Application\nExec=sh\n".to_vec(),
            &["Desktop_Shortcut"],
        ),
        (
            "a library",
            b"<?xml version=\"1.0\"?><libraryDescription xmlns=\"x\">".to_vec(),
            &["Windows_Shell_File"],
        ),
        (
            "a console",
            b"<?xml version=\"1.0\"?><MMC_ConsoleFile x=\"\">".to_vec(),
            &["Windows_Shell_File"],
        ),
        ("SCF", b"[Shell]\r\nCommand=2\r\n".to_vec(), &["Windows_Shell_File"]),
        ("RDP", b"full address:s:192.0.2.1\r\n".to_vec(), &["Windows_Shell_File"]),
        ("REG", b"REGEDIT4\r\n\r\n".to_vec(), &["Windows_Registry_File"]),
        ("a UTF-16 REG", registry, &["Windows_Registry_File"]),
        ("HTA", b"<html><HTA:APPLICATION id=x><body>".to_vec(), &["HTML_Application"]),
        (
            "WSF",
            b"<job id=\"a\"><script language=\"JScript\">x</script></job>".to_vec(),
            &["Windows_Script_File"],
        ),
        (
            "ONE",
            b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3".to_vec(),
            &["OneNote_Section"],
        ),
        ("ONEPKG", b"MSCF\0\0\0\0notes.one\0".to_vec(), &["OneNote_Package"]),
        ("CHM", b"ITSF\x03\0\0\0\x60\0\0\0".to_vec(), &["Windows_Help"]),
        ("IQY", b"WEB\r\n1\r\nhttps://example.org/x.dat\r\n".to_vec(), &["Excel_Query"]),
        (
            "SLK",
            b"ID;P\nO;E\nNN;NAuto_open;ER101C1\nC;X1;Y101;EEXEC(\"calc\")\n".to_vec(),
            &["Excel_Query"],
        ),
        ("JNLP", b"<?xml version=\"1.0\"?>\n<jnlp spec=\"1.0\">".to_vec(), &["Java_Web_Start"]),
        (
            "MOBILECONFIG",
            b"<?xml?><plist><key>PayloadType</key>\n<string>Configuration</string>".to_vec(),
            &["Apple_Configuration_Profile"],
        ),
    ]
}

fn disk_images() -> Vec<MatchingFile> {
    let mut fat = vec![0; 512];
    fat[..3].copy_from_slice(b"\xeb\x3c\x90");
    fat[54..62].copy_from_slice(b"FAT16   ");
    fat[510..].copy_from_slice(b"\x55\xaa");
    vec![
        ("ISO", at(0x8000, b"\x01CD001\x01"), &["Disk_Image"]),
        ("UDF", at(0x8000, b"\0BEA01\x01"), &["Disk_Image"]),
        ("VHD", trailer(b"conectix\0\0\0\x02"), &["Disk_Image"]),
        ("VHDX", b"vhdxfileM\0".to_vec(), &["Disk_Image"]),
        ("DMG", trailer(b"koly\0\0\0\x04\0\0\x02\0"), &["Disk_Image"]),
        ("WIM", b"MSWIM\0\0\0\xd0\0".to_vec(), &["Disk_Image"]),
        ("FAT", fat, &["Disk_Image"]),
    ]
}

fn archives() -> Vec<MatchingFile> {
    let archive = |name: &str| zip(&[("readme.txt", b"hello"), (name, b"x")]);
    vec![
        ("ZIP of LNK", archive("photo.LNK"), &["Archive_With_Launcher"]),
        ("ZIP of VHDX", archive("disk.vhdx"), &["Archive_With_Launcher"]),
        ("two extensions", archive("invoice.pdf.exe"), &["Archive_With_Launcher"]),
        (
            "two extensions, the first in capitals",
            archive("invoice.DOCX.cmd"),
            &["Archive_With_Launcher"],
        ),
        ("right-to-left override", archive("photo\u{202e}gpj.exe"), &["Archive_With_Launcher"]),
    ]
}

fn pages() -> Vec<MatchingFile> {
    let smuggler = b"<html><body><script>var b=new Blob([Uint8Array.from(atob(x))]);\
        var a=document.createElement('a');a.href=URL.createObjectURL(b);a.download='x.iso';a.click()</script>";
    vec![
        ("a page that saves a file", smuggler.to_vec(), &["HTML_Smuggles_File"]),
        (
            "a page that saves a file by msSaveOrOpenBlob",
            b"<html><script>navigator.msSaveOrOpenBlob(new Blob([atob(x)]),'x')</script>".to_vec(),
            &["HTML_Smuggles_File"],
        ),
        (
            "a link that contains a file",
            b"<html><a href=\"data:application/zip;base64,UEsDBA==\" download=x>".to_vec(),
            &["HTML_Carries_Download"],
        ),
        (
            "a page with a URL that starts a program",
            b"<html><script>location.href=\"ms-msdt:/id x\"</script>".to_vec(),
            &["HTML_Starts_Program"],
        ),
        (
            "VBScript",
            b"<html><script language=\"VBScript\">x</script>".to_vec(),
            &["HTML_Starts_Program"],
        ),
        (
            "a page with an ActiveX object",
            b"<html><script>new ActiveXObject('WScript.Shell')</script>".to_vec(),
            &["HTML_Starts_Program"],
        ),
        (
            "SVG with a script",
            b"<svg xmlns=\"x\"><script>1</script></svg>".to_vec(),
            &["Picture_With_Script"],
        ),
        (
            "SVG with a handler",
            b"<?xml version=\"1.0\"?><svg xmlns=\"x\" onload=\"1\"/>".to_vec(),
            &["Picture_With_Script"],
        ),
    ]
}

fn all() -> Vec<MatchingFile> {
    [
        programs(),
        disguised(),
        office_documents(),
        pdf_documents(),
        delivered(),
        disk_images(),
        archives(),
        pages(),
    ]
    .concat()
}

#[test]
fn expected_rules_match() {
    for (description, file, rules) in all() {
        assert_matches(description, &file, rules);
    }
}

#[test]
fn every_rule_matches_a_file() {
    let files = all();
    let matching: BTreeSet<_> = files
        .iter()
        .flat_map(|(_, _, rules)| rules.iter().map(|rule| (*rule).to_owned()))
        .collect();
    assert_eq!(&matching, SUPPLIED.names());
}

#[test]
fn test_file_may_end_with_a_line_break() {
    let eicar: Vec<u8> = EICAR_REVERSED.iter().rev().copied().collect();
    assert_matches("with a line break", &[&eicar[..], b"\r\n"].concat(), &["EICAR_Test_File"]);
    assert_matches("one byte short", &eicar[..67], &[]);
}

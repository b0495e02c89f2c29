/*
  Programs, whatever their file name: software should not be installed from messages, and a program sent as a picture
  is deception. The rules see only the content, so they reject all programs. Where users exchange programs or scripts,
  omit this file, or list single rules in rules.ignore. Scripts, class files and packages count only if they are sent as
  such (scope = "outer"): archives of sources contain them for tests and builds.
*/

private rule Zip
{
    strings:
        $end = { 50 4B 05 06 00 00 00 00 }
    condition:
        // Programs find the directory from the end, so anything may precede it.
        uint32be(0) == 0x504B0304
        or for any i in (1..#end) : (@end[i] + 22 + uint16(@end[i] + 20) == filesize)
}

rule Windows_Program
{
    meta:
        kind = "policy"
        reason = "A program for Windows: EXE, DLL, SCR, CPL, SYS, XLL (PE/COFF)"
    condition:
        uint16be(0) == 0x4D5A and uint32be(uint32(0x3C)) == 0x50450000
}

rule DOS_Program
{
    meta:
        kind = "policy"
        reason = "A program for DOS or 16-bit Windows (MZ without PE)"
    condition:
        // Bytes in the last page of 512, header size in paragraphs of 16; text does not match.
        uint16be(0) == 0x4D5A and uint16(2) < 512 and uint16(8) >= 2 and uint16(8) * 16 <= filesize
        and not Windows_Program
}

rule Linux_Program
{
    meta:
        kind = "policy"
        reason = "A program, library or AppImage for Linux and other Unix systems (ELF)"
    condition:
        // Type and processor, in either byte order. Linux does not check the bytes between them and the magic number.
        uint32be(0) == 0x7F454C46 and (
            (uint16(16) >= 1 and uint16(16) <= 4 and uint16(18) > 0)
            or (uint16be(16) >= 1 and uint16be(16) <= 4 and uint16be(18) > 0))
}

rule Mac_Program
{
    meta:
        kind = "policy"
        reason = "A program or library for macOS or iOS (Mach-O, for one processor or several)"
    condition:
        uint32be(0) == 0xFEEDFACE or uint32be(0) == 0xFEEDFACF or uint32be(0) == 0xCEFAEDFE or uint32be(0) == 0xCFFAEDFE
        // Java classes have the same magic number, followed by a version of at least 45.
        or ((uint32be(0) == 0xCAFEBABE or uint32be(0) == 0xCAFEBABF) and uint32be(4) >= 1 and uint32be(4) < 45)
}

rule Java_Program
{
    meta:
        kind = "policy"
        scope = "outer"
        reason = "A Java class, or an archive of them (JAR)"
    strings:
        $manifest = "META-INF/MANIFEST.MF"
        $entry = "PK\x01\x02"
    condition:
        (uint32be(0) == 0xCAFEBABE and uint16be(6) >= 45)
        // A name starts at offset 46 of its entry; the entry contains the length. The name ends in ".class".
        or (Zip and $manifest and for any i in (1..#entry) : (
            uint32be(@entry[i] + 42 + uint16(@entry[i] + 28)) == 0x6C617373
            and uint16be(@entry[i] + 40 + uint16(@entry[i] + 28)) == 0x2E63))
}

rule Android_Program
{
    meta:
        kind = "policy"
        reason = "A program for Android: an APK, or the code of one (DEX)"
    strings:
        $manifest = "AndroidManifest.xml"
        $code = "classes.dex"
        $dex = /dex\n0[0-9]{2}\x00/
    condition:
        (Zip and $manifest and $code) or $dex at 0
}

rule Script_With_Interpreter
{
    meta:
        kind = "policy"
        scope = "outer"
        reason = "A script with an interpreter line, which can be executed on Unix systems"
    strings:
        $line = /#![ \t]*\/[!-~]/
    condition:
        $line at text_start
}

rule Windows_Batch_File
{
    meta:
        kind = "policy"
        scope = "outer"
        reason = "A script for the Windows command line (BAT, CMD)"
    condition:
        is_batch
}

rule Encoded_Windows_Script
{
    meta:
        kind = "policy"
        reason = "An encoded script for Windows (JSE, VBE)"
    strings:
        // Length, code, checksum, end. Comments may precede the code.
        $code = /#@~\^[A-Za-z0-9+\/]{6}==/
        $end = "==^#~@"
    condition:
        uint32be(text_start) == 0x23407E5E or all of them
}

rule Windows_Installer
{
    meta:
        kind = "policy"
        reason = "A package, patch or transform for Windows Installer (MSI, MSP, MST)"
    strings:
        // Root entry of a compound file with its class identifier, [MS-CFB] 2.6.1.
        $root = { 52 00 6F 00 6F 00 74 00 20 00 45 00 6E 00 74 00 72 00 79 00 [60] (82 | 84 | 86) 10 0C 00 00 00 00 00 C0 00 00 00 00 00 00 46 }
    condition:
        uint32be(0) == 0xD0CF11E0 and $root
}

rule Windows_App_Package
{
    meta:
        kind = "policy"
        reason = "An app for Windows (APPX, MSIX), or the file that installs one"
    strings:
        $map = "AppxBlockMap.xml"
    condition:
        (Zip and $map) or root == "appinstaller"
}

rule Linux_Package
{
    meta:
        kind = "policy"
        scope = "outer"
        reason = "A package for Linux (DEB, RPM, Snap)"
    strings:
        $deb = "!<arch>\ndebian-binary"
    condition:
        $deb at 0 or uint32be(0) == 0xEDABEEDB or (uint32be(0) == 0x68737173 and uint16(28) == 4)
}

rule Mac_Installer
{
    meta:
        kind = "policy"
        reason = "An installer for macOS (PKG), or a compiled AppleScript"
    strings:
        $script = "FasdUAS "
    condition:
        (uint32be(0) == 0x78617221 and uint16be(4) == 28) or $script at 0
}

rule Browser_Extension
{
    meta:
        kind = "policy"
        reason = "A packed extension for Chromium-based browsers (CRX)"
    condition:
        uint32be(0) == 0x43723234 and (uint32(4) == 2 or uint32(4) == 3)
}

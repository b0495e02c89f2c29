/*
  Files of two types at once: one that a viewer displays, and another that a program extracts or runs. The rules see no
  file name, only the content: it starts as a picture, sound, video or document, and contains another type.
*/

private rule Picture
{
    condition:
        uint32be(0) >> 8 == 0xFFD8FF                                             // JPEG
        or (uint32be(0) == 0x89504E47 and uint32be(4) == 0x0D0A1A0A)             // PNG
        or (uint32be(0) == 0x47494638 and uint8(5) == 0x61)                      // GIF
        or (uint16be(0) == 0x424D and uint32(6) == 0)                            // BMP
        or uint32be(0) == 0x49492A00 or uint32be(0) == 0x4D4D002A                // TIFF
        or (uint32be(0) == 0x52494646 and uint32be(8) == 0x57454250)             // WebP
        or (uint32be(0) == 0x00000100 and uint16(4) > 0 and uint8(9) == 0)       // ICO
        or uint32be(0) == 0x38425053                                             // Photoshop
        or uint16be(0) == 0xFF0A or (uint32be(0) == 0x0000000C and uint32be(8) == 0x0D0A870A) // JPEG XL, JPEG 2000
}

private rule Sound_Or_Video
{
    condition:
        uint32be(0) >> 8 == 0x494433                                             // MP3 with ID3
        or (uint16be(0) & 0xFFE6 == 0xFFE2 and uint8(2) & 0xF0 != 0xF0)          // MP3
        or uint32be(0) == 0x4F676753 or uint32be(0) == 0x664C6143                // Ogg, FLAC
        or (uint32be(0) == 0x52494646 and (uint32be(8) == 0x57415645 or uint32be(8) == 0x41564920)) // WAVE, AVI
        or (uint32be(0) == 0x464F524D and uint32be(8) >> 8 == 0x414946)          // AIFF
        or uint32be(0) == 0x4D546864                                             // MIDI
        or uint32be(4) == 0x66747970                                             // MP4, QuickTime, HEIF, AVIF
        or uint32be(0) == 0x1A45DFA3                                             // Matroska, WebM
        or uint32be(0) == 0x464C5601 or uint32be(0) == 0x3026B275                // FLV, ASF
        or uint32be(0) == 0x000001BA or uint32be(0) == 0x000001B3                // MPEG
}

private rule Document
{
    condition:
        uint32be(0) == 0x25504446 or uint32be(0) == 0xD0CF11E0 or uint32be(text_start) == 0x7B5C7274 // PDF, OLE, RTF
}

rule Disguised_Program
{
    meta:
        kind = "policy"
        reason = "Starts as a picture, sound, video or document, but contains a program for Windows, Linux or macOS"
    strings:
        // PE/COFF: signature, machine, 14 bytes, size of the optional header, 2 bytes, magic number.
        $windows = { 50 45 00 00 (4C 01 | 64 86 | 64 AA | C0 01 | C2 01 | C4 01) [14] (E0 | F0) 00 [2] 0B (01 | 02) }
        // 12 bytes that Linux does not check; type, machine and version in either byte order.
        $linux_le = { 7F 45 4C 46 [12] (02 | 03) 00 ?? (00 | 01) 01 00 00 00 }
        $linux_be = { 7F 45 4C 46 [12] 00 (02 | 03) (00 | 01) ?? 00 00 00 01 }
        $mac = { (CE | CF) FA ED FE (07 | 0C) 00 00 (00 | 01) [4] (02 | 06 | 08) 00 00 00 }
    condition:
        (Picture or Sound_Or_Video or Document) and any of them
}

rule Disguised_Archive
{
    meta:
        kind = "policy"
        reason = "Starts as a picture, sound or video, but contains an archive that other programs unpack"
    strings:
        $zip_entry = { 50 4B 01 02 [6] (00 | 08 | 09 | 0C | 0E | 5D | 5F | 63) 00 }
        $zip_end = { 50 4B 05 06 00 00 00 00 }
        $rar = { 52 61 72 21 1A 07 (00 | 01 00) }
        $seven_zip = { 37 7A BC AF 27 1C 00 }
        $cabinet = { 4D 53 43 46 00 00 00 00 [4] 00 00 00 00 [4] 00 00 00 00 03 01 }
        $xz = { FD 37 7A 58 5A 00 00 (00 | 01 | 04 | 0A) }
    condition:
        (Picture or Sound_Or_Video) and (($zip_entry and $zip_end) or any of ($rar, $seven_zip, $cabinet, $xz))
}

rule Disguised_Document
{
    meta:
        kind = "policy"
        reason = "Starts as a picture or sound, but is a PDF for readers that search for its header"
    strings:
        $pdf = /%PDF-[12]\.[0-9]/
    condition:
        (Picture or Sound_Or_Video) and $pdf in (1..1100)
}

rule Disguised_Page
{
    meta:
        kind = "policy"
        reason = "Starts as a picture or sound, but contains an HTML script, for programs that guess the type"
    strings:
        $script = /<script[ \t\r\n>]/ nocase
    condition:
        (Picture or (Sound_Or_Video and uint32be(4) != 0x66747970)) and $script
}

rule Disguised_Script
{
    meta:
        kind = "policy"
        reason = "A picture whose first bytes are also a script: its size starts a comment or an assignment"
    strings:
        $head = /(GIF8[79]a|BM)(\/\*|=)/
        $assignment = /\*\/[ \t\r\n]{0,16}=/
    condition:
        $head at 0 and $assignment
}

rule Text_Carries_Program
{
    meta:
        kind = "policy"
        reason = "A text that contains a program in base64 or hexadecimal digits"
    strings:
        // Headers written by linkers: MZ, 144 or 80, 3 or 2, 4; and ELF for 64 bits.
        $base64_windows = "TVqQAAMAAAAEAAAA//8A"
        $base64_windows_2 = "TVpQAAIAAAAEAA8A//8A"
        $base64_linux = /f0VMRgIBAQ[AM]AAAAAAAAAAA[IM]APgAB/
        $hex_windows = "4d5a90000300000004000000ffff0000" nocase
        $hex_windows_2 = "4d5a50000200000004000f00ffff0000" nocase
    condition:
        any of them
}

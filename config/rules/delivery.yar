/*
  Kinds of files that are rarely sent as documents, but often used to make the recipient start a program: shortcuts,
  HTML applications, disk images (the files in which lack the mark of the web).
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

rule Windows_Shortcut
{
    meta:
        kind = "policy"
        reason = "A Windows shortcut (LNK), which can start any program"
    condition:
        // [MS-SHLLINK] 2.1: size and class.
        uint32be(0) == 0x4C000000 and uint32be(4) == 0x01140200 and uint32be(12) == 0xC0000000
}

rule Internet_Shortcut
{
    meta:
        kind = "policy"
        reason = "An Internet shortcut (URL), which can start a program on another machine"
    condition:
        settings contains "\n[internetshortcut]\n"
}

rule Desktop_Shortcut
{
    meta:
        kind = "policy"
        scope = "outer"
        reason = "A shortcut for Linux desktops (DESKTOP), which can run any command"
    condition:
        settings contains "\n[desktop entry]exec=\n" or settings contains "\n[desktop entry]tryexec=\n"
}

rule Windows_Shell_File
{
    meta:
        kind = "policy"
        reason = "A file that Windows Explorer executes: settings, a library, a search, a console, a theme, a command"
    condition:
        // Library, search connector, saved search, console, settings.
        root == "librarydescription" or root == "searchconnectordescription" or root == "persistedquery"
        or root == "mmc_consolefile" or root == "pcsettings" or root == "settingcontent"
        // Command (SCF). The icon may be on another machine, which then receives a hash of the password.
        or settings contains "\n[shell]command=\n" or settings contains "\n[shell]iconfile=\n"
        // Theme.
        or (settings contains "\n[theme]\n"
            and (settings contains "\n[masterthemeselector]\n" or settings contains "\n[visualstyles]\n"
                or settings contains "\n[control panel\\"))
        // Remote desktop.
        or settings contains "\nfull address:s:\n" or settings contains "\nalternate full address:s:\n"
        or settings contains "\nremoteapplicationmode:i:\n" or settings contains "\nremoteapplicationprogram:s:\n"
        or settings contains "\nscreen mode id:i:\n"
}

rule Windows_Registry_File
{
    meta:
        kind = "policy"
        reason = "Entries for the Windows registry (REG)"
    strings:
        $head = /(Windows Registry Editor Version [45]\.00|REGEDIT4)[ \t]*[\r\n]/
        $head_wide = { FF FE 57 00 69 00 6E 00 64 00 6F 00 77 00 73 00 20 00 52 00 65 00 67 00 69 00 73 00 74 00 72 00 79 00 20 00 45 00 64 00 69 00 74 00 6F 00 72 00 }
    condition:
        $head at text_start or $head_wide at 0
}

rule HTML_Application
{
    meta:
        kind = "policy"
        reason = "An HTML application (HTA), which Windows runs without a browser's restrictions"
    strings:
        $tag = /<hta:application[ \t\r\n\/>]/ nocase
    condition:
        $tag in (0..65536) or (root != "" and $tag)
}

rule Windows_Script_File
{
    meta:
        kind = "policy"
        reason = "A script for Windows Script Host (WSF, WSC, SCT)"
    strings:
        $script = /<script[ \t\r\n][^>]*language[ \t\r\n]*=[ \t\r\n]*["']?(vbs|js|jscript|perlscript|python)/ nocase
    condition:
        (root == "job" or root == "package" or root == "component" or root == "scriptlet" or root == "registration")
        and $script
}

rule Disk_Image
{
    meta:
        kind = "policy"
        reason = "An image of a disk, CD or DVD (ISO, UDF, VHD, VHDX, DMG, WIM, FAT, NTFS)"
    strings:
        $vhdx = "vhdxfile"
        $wim = "MSWIM\x00\x00\x00"
    condition:
        // ECMA-119, ECMA-167: volume descriptors start at sector 16 of 2048 bytes.
        (uint32be(0x8001) == 0x43443030 and uint8(0x8005) == 0x31)
        or (uint32be(0x8001) == 0x42454130 and uint8(0x8005) == 0x31)
        // Raw sectors, with 16 or 24 bytes before the data.
        or (uint32be(0) == 0x00FFFFFF and (uint32be(0x9311) == 0x43443030 or uint32be(0x9319) == 0x43443030))
        // VHD: a copy of the footer at the start, or the footer alone.
        or (uint32be(0) == 0x636F6E65 and uint32be(4) == 0x63746978)
        or (filesize >= 1024 and uint32be(filesize - 512) == 0x636F6E65 and uint32be(filesize - 508) == 0x63746978)
        // DMG: the trailer.
        or (filesize >= 512 and uint32be(filesize - 512) == 0x6B6F6C79 and uint32be(filesize - 508) == 4)
        or $vhdx at 0 or $wim at 0
        // Boot sector: jump instruction, name of the file system, signature.
        or (uint8(0) == 0xEB and uint16be(510) == 0x55AA
            and (uint32be(54) == 0x46415431 or uint32be(82) == 0x46415433 or uint32be(3) == 0x4E544653 or uint32be(3) == 0x45584641))
}

rule OneNote_Section
{
    meta:
        kind = "policy"
        reason = "A OneNote section, which can hide any file behind a picture"
    condition:
        // [MS-ONESTORE] 2.3.1: file type; the second is a table of contents.
        (uint32be(0) == 0xE4525C7B and uint32be(4) == 0x8CD8A74D) or (uint32be(0) == 0xA12FFF43 and uint32be(4) == 0xD9EF764C)
}

rule OneNote_Package
{
    meta:
        kind = "policy"
        reason = "A OneNote package: a cabinet file with sections"
    strings:
        $section = ".one\x00" nocase
    condition:
        uint32be(0) == 0x4D534346 and $section
}

rule Windows_Help
{
    meta:
        kind = "policy"
        reason = "A compiled help file for Windows (CHM), whose pages can start programs"
    condition:
        uint32be(0) == 0x49545346 and (uint32(4) == 2 or uint32(4) == 3)
}

rule Excel_Query
{
    meta:
        kind = "policy"
        reason = "An Excel query (IQY), or a sheet in the exchange format SLK with a macro or command"
    strings:
        $query = /WEB[ \t]*\r?\n1[ \t]*\r?\n[ \t]*(https?|ftp|file|\\\\)/ nocase
        $sylk = "ID;P"
        $macro = /\nNN;NAuto_(open|close)/ nocase
        $exec = /;E[ -~]{0,16}(EXEC|CALL|DDE)\(/ nocase
        $dde = /;E[A-Za-z0-9]{1,32}\|/
    condition:
        $query at text_start or ($sylk at text_start and any of ($macro, $exec, $dde))
}

rule Java_Web_Start
{
    meta:
        kind = "policy"
        reason = "A file that downloads and starts a program (JNLP, ClickOnce)"
    strings:
        $click_once = /<([A-Za-z0-9_.-]{1,32}:)?deployment[ \t\r\n]/
        $assembly = "urn:schemas-microsoft-com:asm."
    condition:
        root == "jnlp" or (root == "assembly" and all of them)
}

rule Apple_Configuration_Profile
{
    meta:
        kind = "policy"
        reason = "Settings for iPhones and Macs, which can give control of the device to others (MOBILECONFIG)"
    strings:
        $list = "<plist"
        $payload = /<key>PayloadType<\/key>\s{0,16}<string>Configuration<\/string>/
    condition:
        (root == "plist" or $list in (0..1024)) and $payload
}

rule Archive_With_Launcher
{
    meta:
        kind = "policy"
        reason = "An archive that contains a shortcut, script or screen saver, according to its file names"
    strings:
        $entry = "PK\x01\x02"
        $backwards = "\xE2\x80\xAE"
    condition:
        // A name starts at offset 46 of its entry; the entry contains the length. The numbers are the last four bytes
        // of names, in lower case: .lnk .hta .scr .pif .vbs .vbe .jse .wsf .wsh .cpl .chm .scf .url .iqy .one .iso .img
        // .vhd vhdx
        Zip and for any i in (1..#entry) : (
            for any ending in (0x2E6C6E6B, 0x2E687461, 0x2E736372, 0x2E706966, 0x2E766273, 0x2E766265, 0x2E6A7365, 0x2E777366,
                0x2E777368, 0x2E63706C, 0x2E63686D, 0x2E736366, 0x2E75726C, 0x2E697179, 0x2E6F6E65, 0x2E69736F, 0x2E696D67,
                0x2E766864, 0x76686478) : (
                (uint32be(@entry[i] + 42 + uint16(@entry[i] + 28)) | 0x00202020) == ending)
            // .exe .com .bat .cmd .ps1 .jar .msi, preceded by .pdf .doc .xls .ppt docx xlsx pptx .odt .rtf .txt .jpg jpeg
            // .png .gif .mp3 .mp4
            or (for any ending in (0x2E657865, 0x2E636F6D, 0x2E626174, 0x2E636D64, 0x2E707331, 0x2E6A6172, 0x2E6D7369) : (
                (uint32be(@entry[i] + 42 + uint16(@entry[i] + 28)) | 0x00202020) == ending)
                and for any before in (0x2E706466, 0x2E646F63, 0x2E786C73, 0x2E707074, 0x646F6378, 0x786C7378, 0x70707478,
                    0x2E6F6474, 0x2E727466, 0x2E747874, 0x2E6A7067, 0x6A706567, 0x2E706E67, 0x2E676966, 0x2E6D7033, 0x2E6D7034) : (
                    (uint32be(@entry[i] + 38 + uint16(@entry[i] + 28)) | 0x00202020) == before
                    or (uint32be(@entry[i] + 38 + uint16(@entry[i] + 28)) | 0x20202020) == before))
            // Right-to-left override: displays "gpj.exe" as "exe.jpg".
            or $backwards in (@entry[i] + 46..@entry[i] + 46 + uint16(@entry[i] + 28)))
}

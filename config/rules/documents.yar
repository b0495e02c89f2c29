/*
  Documents that run code when they are opened. The rules are also evaluated on what is unpacked from a document: the
  parts of an Office Open XML file, the streams of a compound file or a PDF.
*/

private rule Compound_File
{
    condition:
        uint32be(0) == 0xD0CF11E0 and uint32be(4) == 0xA1B11AE1
}

private rule Zip
{
    condition:
        uint32be(0) == 0x504B0304
}

private rule Rich_Text
{
    condition:
        uint32be(text_start) == 0x7B5C7274
}

rule Office_Macros_That_Run_By_Themselves
{
    meta:
        kind = "policy"
        reason = "A Word, Excel or PowerPoint file (before 2007) with macros that run when it is opened or closed"
    strings:
        $project = "_VBA_PROJECT" wide
        // Names in [MS-OVBA]: complete in the project's list of names; in compressed source text, a flag byte can
        // separate any two letters.
        $auto_1 = "autoopen" nocase
        $auto_2 = "autoexec" nocase
        $auto_3 = "autoclose" nocase
        $auto_4 = "auto_open" nocase
        $auto_5 = "auto_close" nocase
        $auto_6 = "autoexit" nocase
        $auto_7 = "autonew" nocase
        $auto_8 = /(A.uto|Au.to|Aut.o|Auto.)_?(Open|Exec|Close)/s
        $auto_9 = /Auto_?(O.pen|Op.en|Ope.n|E.xec|Ex.ec|Exe.c|C.lose|Cl.ose|Clo.se|Clos.e)/s
        $event_1 = "document_open" nocase
        $event_2 = "document_close" nocase
        $event_3 = "document_new" nocase
        $event_4 = "workbook_open" nocase
        $event_5 = "workbook_activate" nocase
        $event_6 = "workbook_beforeclose" nocase
        $event_7 = "contentcontrolonenter" nocase
        $event_8 = /_(Open|O.pen|Op.en|Ope.n|Open.|Close|C.lose|Cl.ose|Clo.se|Clos.e|Close.)\(/s
    condition:
        Compound_File and $project and any of ($auto*, $event*)
}

rule Office_Macros
{
    meta:
        kind = "policy"
        reason = "A Word, Excel, PowerPoint or Visio file with macros (docm, xlsm, pptm), whose effect is unknown"
    strings:
        $project = "/vbaProject" nocase
        $sheet = "xl/macrosheets/" nocase
        $archive = "ActiveMime"
    condition:
        (Zip and any of ($project, $sheet))
        // Relationships to macros in a part of any name, and Office documents in one XML file.
        or ((root == "relationships" or root == "package")
            and (elements contains "/vbaproject\n" or elements contains "/xlmacrosheet\n"
                or elements contains "/xlintlmacrosheet\n"))
        or (root == "package" and elements contains "\npart\tcontenttype=application/vnd.ms-office.vbaproject\n")
        or (root == "worddocument" and (elements contains "\nworddocument\tmacrospresent=yes\n"
            or elements contains "\nbindata\tname=editdata.mso\n"))
        // Macros of a web archive, or of a document in XML.
        or $archive at 0
}

rule Office_ActiveX
{
    meta:
        kind = "policy"
        reason = "A Word, Excel or PowerPoint file with ActiveX controls, whose code runs when it is opened"
    strings:
        $control = "/activeX/activeX" nocase
    condition:
        (Zip and $control)
        or ((root == "relationships" or root == "package")
            and (elements contains "/control\n" or elements contains "/activexcontrolbinary\n"))
}

rule Excel4_Macros_That_Run_By_Themselves
{
    meta:
        kind = "policy"
        reason = "An Excel file (before 2007) with an Excel 4.0 macro that runs when it is opened or closed"
    strings:
        // [MS-XLS] 2.4.150: built-in name; 1 is Auto_Open, 2 is Auto_Close.
        $name = { 18 00 ?? 00 (20 | 21) 00 00 01 ?? ?? 00 00 ?? 00 00 00 00 00 00 (01 | 02) 3A }
        // [MS-XLS] 2.4.28: macro sheet.
        $sheet = { 85 00 ?? 00 ?? ?? ?? ?? (00 | 01 | 02) 01 ?? (00 | 01) }
    condition:
        Compound_File and all of them
}

rule OpenDocument_Macros
{
    meta:
        kind = "policy"
        reason = "An OpenDocument file with macros, whose effect is unknown"
    strings:
        $type = "mimetypeapplication/vnd.oasis.opendocument"
        $entry = "PK\x01\x02"
        $scripts = /Scripts\/(python|javascript|java|beanshell)\/[!-~]/
    condition:
        Zip and $type at 30 and ($scripts or for any i in (1..#entry) : (
            // "Basic/…", except the lists of modules, "script-l….xml", which exist without modules.
            uint32be(@entry[i] + 46) == 0x42617369 and uint16be(@entry[i] + 50) == 0x632F
            and uint32be(@entry[i] + 42 + uint16(@entry[i] + 28)) == 0x2E786D6C
            and uint32be(@entry[i] + 37 + uint16(@entry[i] + 28)) != 0x70742D6C))
}

rule Document_Runs_Command
{
    meta:
        kind = "policy"
        reason = "A Word, Excel or RTF file with a field that starts a program (DDE)"
    strings:
        $field = /\x13[ \t]{0,8}"?[ \t]{0,8}DDE(AUTO)?[ \t]/ nocase
        $field_wide = { 13 00 [0-16] 44 00 44 00 45 00 41 00 55 00 54 00 4F 00 20 00 }
    condition:
        (Compound_File and any of them)
        or fields contains "\ndde\n" or fields contains "\nddeauto\n"
        or (root == "externallink" and elements contains "\nddelink\n")
}

rule Document_Loads_Template
{
    meta:
        kind = "policy"
        reason = "An Office or RTF file that loads a template or object from another machine when it is opened"
    strings:
        $template = /[^\\](\\\\)*\\template[ \t\r\n]{1,8}(https?:|ftp:|mhtml:|\\\\\\\\)/ nocase
    condition:
        ((root == "relationships" or root == "package") and
            for any kind in ("\tremote=attachedtemplate\n", "\tremote=oleobject\n", "\tremote=frame\n",
                "\tremote=subdocument\n", "\tremote=transform\n") : (elements contains kind))
        or (Rich_Text and $template)
}

rule RTF_Object_That_Loads_Itself
{
    meta:
        kind = "policy"
        reason = "An RTF file with an object that is loaded when the file is opened"
    strings:
        // Two backslashes encode a backslash of the text.
        $object = /[^\\](\\\\)*\\objdata[^a-z]/
        $update = /[^\\](\\\\)*\\objupdate[^a-z]/
    condition:
        Rich_Text and $object and $update
}

rule Document_Carries_Program_File
{
    meta:
        kind = "policy"
        reason = "A document with an attached program, script or shortcut, according to its file name"
    strings:
        $native = "\x01Ole10Native" wide
        $packaged = /\.(exe|scr|pif|com|bat|cmd|ps1|js|jse|vbs|vbe|wsf|hta|lnk|msi|cpl|jar|iso|vhd)\x00/ nocase
        $embedded = "/EmbeddedFile"
        $attached = /\/U?F[ \t\r\n]{0,4}\([^()\r\n]{1,48}\.(exe|scr|pif|bat|cmd|ps1|js|jse|vbs|vbe|wsf|hta|lnk|msi|cpl|jar|iso|vhd|docm|xlsm)\)/ nocase
        $launcher = "exportDataObject"
    condition:
        (Compound_File and $native and $packaged)
        or (uint32be(0) == 0x25504446 and $embedded and ($attached or $launcher))
}

rule PDF_Runs_Code
{
    meta:
        kind = "policy"
        reason = "A PDF whose script runs when it is opened"
    strings:
        // The evaluator also passes all objects of a PDF as one text, in which references to actions are replaced by the
        // actions, names contain no escapes, and /S is the first entry of an action.
        $head = "%PDF-"
        $direct = /\/OpenAction[ \t\r\n]{0,8}<<[^>]{0,48}\/S[ \t\r\n]{0,8}\/JavaScript/
        // A chained action.
        $next = /\/OpenAction <<[^\n]*\/Next \[?<<\/S \/JavaScript/
        $rendition = /\/OpenAction <<[^\n>]*\/S \/Rendition[^\n>]*\/JS[ (]/
        // Opening and closing of pages and documents. Fields have other events.
        $page = /\/(O|PO|PC|PV|PI|WC|WS|DS|WP|DP)[ \t\r\n]{0,4}<<[^>]{0,48}\/S[ \t\r\n]{0,8}\/JavaScript/
        $names = /\/JavaScript[ \t\r\n]{1,8}([0-9]{1,10}[ \t\r\n]{1,4}[0-9]{1,5}[ \t\r\n]{1,4}R|<<)/
        $names_2 = /\/JavaScript<</
    condition:
        ($head in (0..1024) and any of ($direct, $next, $rendition, $page, $names, $names_2))
        // A form in XML.
        or ((root == "xdp" or root == "template")
            and for any activity in ("\nevent\tdocready=application/x-javascript\n",
                "\nevent\tready=application/x-javascript\n", "\nevent\tinitialize=application/x-javascript\n",
                "\nevent\tpreopen=application/x-javascript\n") : (elements contains activity))
}

rule PDF_Starts_Program
{
    meta:
        kind = "policy"
        reason = "A PDF that starts a program, or opens another file when it is opened"
    strings:
        $head = "%PDF-"
        $launch = /\/S[ \t\r\n]{0,8}\/Launch[ \t\r\n\/>]/
        // Forms contain links that launch another document; those match only if no click is needed.
        $windows = /\/Win[ \t\r\n]{0,4}<</
        $program = /\.(exe|com|scr|pif|bat|cmd|ps1|vbs|vbe|js|jse|wsf|hta|lnk|jar|msi|cpl|sh|app)\)/ nocase
        $opening = /\/(OpenAction|O|PO|PC|PV|PI|WC|WS|DS|WP|DP)[ \t\r\n]{0,8}<<[^>]{0,48}\/S[ \t\r\n]{0,8}\/Launch/
        $next = /\/OpenAction <<[^\n]*\/Next \[?<<\/S \/Launch/
    condition:
        $head in (0..1024) and $launch and any of ($windows, $program, $opening, $next)
}

rule PDF_Hides_Names
{
    meta:
        kind = "policy"
        reason = "A PDF that obfuscates the names of its actions"
    strings:
        $head = "%PDF-"
        // ISO 32000-1 7.3.5: #xx encodes a byte of a name; letters do not need it.
        $one = /\/[A-Za-z]{0,12}#(4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])[A-Za-z]{6,20}/ nocase
        $late = /\/[A-Za-z]{6,12}#(4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])[A-Za-z]{0,20}[ \t\r\n\/<>()\[\]]/ nocase
        $several = /\/[A-Za-z]{0,12}#(4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])[A-Za-z]{0,8}#(4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])/ nocase
    condition:
        $head in (0..1024) and any of ($one, $late, $several)
}

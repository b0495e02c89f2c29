/*
  HTML pages whose script saves an embedded file to the disk, which bypasses scanners of downloads, and pages that start
  programs.
*/

private rule Page
{
    strings:
        $tag = /<(!doctype[ \t\r\n]{1,4}html|html|head|body|script|svg|iframe|meta)[ \t\r\n>\/]/ nocase
    condition:
        $tag in (0..65536)
}

rule HTML_Smuggles_File
{
    meta:
        kind = "policy"
        reason = "An HTML page whose script creates a file from embedded text and saves it unasked"
    strings:
        $script = /<script[ \t\r\n>\/]/ nocase
        $handler = /[ \t\r\n"'](onload|onerror|onclick)[ \t]{0,4}=/ nocase
        $save = /msSave(OrOpen)?Blob/
        $blob = /new[ \t\r\n]{1,2}(Blob|File)[ \t\r\n]{0,2}\(/
        $address = "createObjectURL"
        $decode = /(atob|charCodeAt|fromCharCode|Uint8Array|TextEncoder)/
        $download = /(\.|["'])download\b/
        $press = /(\.|["'])(click|dispatchEvent)\b|location(\.href)?[ \t]{0,4}=|window\.open/
    condition:
        Page and ($script or $handler) and $decode
        and ($save or ($blob and $address and $download and $press))
}

rule HTML_Carries_Download
{
    meta:
        kind = "policy"
        reason = "An HTML page with a link that saves a file embedded in the link"
    strings:
        $script = /<script[ \t\r\n>\/]/ nocase
        $link = /href[ \t]{0,2}=[ \t]{0,2}["'`]?data:(application|binary)\/[a-z0-9.+-]{1,24};base64,/ nocase
        $saved = /[ \t\r\n]download([ \t\r\n=>])/ nocase
        $press = /(\.|["'])(click|dispatchEvent)\b/
    condition:
        Page and $link and ($saved or ($script and $press))
}

rule HTML_Starts_Program
{
    meta:
        kind = "policy"
        reason = "An HTML page that starts a local program by a URL scheme, or contains a script for Windows"
    strings:
        $address = /["'`=(](ms-msdt|search-ms|ms-officecmd|ms-appinstaller|ms-search|ms-excel|ms-word|ms-powerpoint|ms-cxh):/ nocase
        $basic = /(language|type)[ \t]{0,2}=[ \t]{0,2}["']?(text\/)?(vbs|vbscript)/ nocase
        $object = /(WScript\.Shell|Shell\.Application|ADODB\.Stream|MSXML2\.XMLHTTP|Scripting\.FileSystemObject)/ nocase
        $create = /(ActiveXObject|CreateObject|GetObject)/
    condition:
        Page and ($address or $basic or ($object and $create))
}

rule Picture_With_Script
{
    meta:
        kind = "policy"
        reason = "An SVG drawing with a script, which runs if the drawing is opened as a page"
    strings:
        $svg = /<svg[ \t\r\n>:]/ nocase
        $script = /<(svg:)?script[ \t\r\n>\/]/ nocase
        $handler = /[ \t\r\n"'\/]on(load|error|click|begin|end|mouseover|mousemove|focusin)[ \t\r\n]{0,4}=/ nocase
        $address = /href[ \t\r\n]{0,4}=[ \t\r\n]{0,4}["'][ \t\r\n]{0,8}javascript:/ nocase
        $foreign = /<(iframe|embed|object)[ \t\r\n]/ nocase
        $page = /<(!doctype html|html)[ \t\r\n>]/ nocase
    condition:
        filesize < 32MB and uint32be(0) != 0x89504E47 and $svg in (0..4096) and not $page in (0..4096)
        and any of ($script, $handler, $address, $foreign)
}

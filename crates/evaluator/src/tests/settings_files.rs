//! Settings files: shortcuts, commands, themes, remote desktops, registry entries.

use super::{assert_all_match, assert_matches_in_all_encodings, assert_none_match};

#[test]
fn byte_order_marks_change_nothing() {
    for (rule, text) in [
        ("Internet_Shortcut", "[InternetShortcut]\r\nURL=file://host/a.exe\r\n"),
        ("Windows_Shell_File", "[Shell]\r\nCommand=2\r\n"),
        ("Windows_Shell_File", "screen mode id:i:2\r\nfull address:s:host\r\n"),
        ("Windows_Shell_File", "<?xml version=\"1.0\"?>\r\n<libraryDescription xmlns=\"x\"/>"),
        (
            "Windows_Registry_File",
            "Windows Registry Editor Version 5.00\r\n\r\n[HKEY_CURRENT_USER\\a]\r\n",
        ),
        ("Desktop_Shortcut", "[Desktop Entry]\nType=Application\nExec=sh\n"),
        ("Excel_Query", "WEB\r\n1\r\nhttps://example.org/x.dat\r\n"),
        ("Script_With_Interpreter", "#!/bin/sh\necho\n"),
        ("Java_Web_Start", "<jnlp spec=\"1.0\"></jnlp>\r\n"),
    ] {
        assert_matches_in_all_encodings(rule, text);
    }
}

#[test]
fn internet_shortcuts_are_found_behind_other_lines() {
    assert_all_match(
        "Internet_Shortcut",
        &[
            "\r\n\r\n [internetshortcut] \r\nurl = file://host/a.exe\r\n",
            "; comment\r\n# comment\r\n[InternetShortcut]\r\nURL=https://example.org\r\n",
            "[{000214A0-0000-0000-C000-000000000046}]\r\nProp3=19,2\r\n[InternetShortcut]\r\nURL=x\r\n",
            "[Other]\r\na=b\r\n[InternetShortcut]\r\nURL=x\r\n",
            "junk\r\n[InternetShortcut]\r\nURL=file://host/a.exe\r\nIconIndex=0\r\n",
            "[InternetShortcut] ; comment\rURL=x\r",
        ],
    );
    assert_none_match(&[
        "# Shortcuts\n\nA file of this kind contains the following lines:\n\n```\n[InternetShortcut]\nURL=x\n```\n",
        "Please put these lines into a file:\n[InternetShortcut]\nURL=https://example.org\n",
        "def test_url():\n    text = '[InternetShortcut]'\n    assert text\n    return None\n",
        "[InternetShortcuts]\r\nURL=x\r\n",
        "[Settings]\r\nkind=[InternetShortcut]\r\n",
    ]);
}

#[test]
fn commands_and_themes_are_found_in_any_order() {
    assert_all_match(
        "Windows_Shell_File",
        &[
            "[Shell]\r\nIconFile=\\\\host\\share\\a.ico\r\nCommand=2\r\n",
            "; x\r\n[SHELL]\r\ncommand = 2\r\n[Taskbar]\r\nCommand=ToggleDesktop\r\n",
            "; x\r\n[Theme]\r\nDisplayName=x\r\n[VisualStyles]\r\nPath=\\\\host\\a.msstyles\r\n",
            "[MasterThemeSelector]\r\nMTSM=DABJDKT\r\n[Theme]\r\nDisplayName=x\r\n",
            "[Theme]\r\nDisplayName=x\r\n[Control Panel\\Desktop]\r\nWallpaper=\\\\host\\a.jpg\r\n",
        ],
    );
    assert_none_match(&[
        // A theme of Sphinx, and one of a desktop.
        "[theme]\ninherit = basic\nstylesheet = basic.css\n\n[options]\nwidth = 12\n",
        "[Icon Theme]\nName=Hicolor\nDirectories=16x16/apps\n",
        "[Shell]\nname=bash\n[Taskbar]\nCommand=x\n",
    ]);
}

#[test]
fn remote_desktops_are_found_by_any_setting() {
    assert_all_match(
        "Windows_Shell_File",
        &[
            "allow font smoothing:i:1\r\nalternate full address:s:h\r\nfull address:s:h\r\n",
            "drivestoredirect:s:*\r\nAlternate Full Address:s:h\r\nuse multimon:i:0\r\n",
            "smart sizing:i:1\r\nremoteapplicationmode:i:1\r\nremoteapplicationprogram:s:||x\r\n",
        ],
    );
    assert_none_match(&[
        "The setting full address:s:host of a file names the server that is used.\nOther lines follow it.\n",
        "name:s:x\nother:i:1\n",
    ]);
}

#[test]
fn desktop_entries_need_a_command() {
    assert_all_match(
        "Desktop_Shortcut",
        &[
            "[Desktop Entry]\nType=Application\nName[de]=x\nExec=sh\n",
            "\n\n# comment\n[Desktop Entry]\nTryExec=sh\n",
        ],
    );
    assert_none_match(&["[Desktop Entry]\nType=Link\nURL=https://example.org\n"]);
}

#[test]
fn registry_files_may_begin_with_blank_lines() {
    assert_all_match(
        "Windows_Registry_File",
        &[
            "\r\n \r\nREGEDIT4\r\n\r\n[HKEY_CURRENT_USER\\a]\r\n",
            "Windows Registry Editor Version 5.00 \r\n",
        ],
    );
    assert_none_match(&["The first line is\nWindows Registry Editor Version 5.00\n"]);
}

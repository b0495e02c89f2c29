//! Scripts as operators write them: in careless bash, in Python, and around yara.

use std::fs;

use crate::{ScriptSetup, TestDaemon, skip_without};

const BASH: &str = r#"#!/bin/bash
# Files written beside the input, unquoted words, a here-document, a pipe, a variable.
unpack() {
python3 - $1 $TMPDIR <<'PYTHON'
import sys, zipfile, os
todo = [sys.argv[1]]
while todo:
    path = todo.pop()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                todo.append(archive.extract(name, os.path.join(sys.argv[2], str(len(todo)) + os.path.basename(path))))
PYTHON
}
unpack ${1} || exit 2
grep -rac 'EICAR-STANDARD-''ANTIVIRUS' ${1} $TMPDIR > ${1}-log
found=$(sed 's/.*://' < ${1}-log | sort -rn | head -n 1)
echo "$WHO found $found"
[[ $found == 0 ]]
"#;

const PYTHON: &str = r"#!/usr/bin/python3
import io, sys, tempfile, zipfile

def infected(data):
    if b'EICAR-STANDARD-' b'ANTIVIRUS' in data:
        return True
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(infected(archive.read(name)) for name in archive.namelist())
    return False

with open(sys.argv[1], 'rb') as file, tempfile.TemporaryFile() as copy:
    copy.write(file.read())
    copy.seek(0)
    sys.exit(1 if infected(copy.read()) else 0)
";

/// Unpacks archives for the shipped script, because yara does not.
const UNPACKING: &str = r#"
unpack() {
	python3 -m zipfile -e "$1" "$2" 2>/dev/null || return 0
	for inner in "$2"/*; do unpack "$inner" "$inner.d"; done
}
unpack "$2" "$TMPDIR/d"
find "$TMPDIR" -type f | while read -r inner; do scan "$1" "$inner" || exit; done || exit
scan "$1" "$2"
"#;

#[test]
fn bash_script_can_write_beside_the_file() {
    if skip_without("bash_script_can_write_beside_the_file", &["python3", "bash"]) {
        return;
    }
    ScriptSetup { script: BASH, config: "sandbox.environment = { WHO = \"bash\" }" }
        .assert_verdicts();
}

#[test]
fn python_script_returns_correct_verdicts() {
    if skip_without("python_script_returns_correct_verdicts", &["python3"]) {
        return;
    }
    ScriptSetup { script: PYTHON, config: "" }.assert_verdicts();
}

#[test]
fn shipped_yara_script_returns_correct_verdicts() {
    if skip_without("shipped_yara_script_returns_correct_verdicts", &["python3", "yara"]) {
        return;
    }
    let directory = TestDaemon::new();
    let rules = directory.path("test.yar");
    let rule = "rule Test_EICAR { strings: $a = \"EICAR-STANDARD-\" \"ANTIVIRUS\" condition: $a }";
    let rule = rule.replace("\" \"", "");
    fs::write(&rules, rule).unwrap();
    let rules = rules.display();
    let config = format!(
        "scan.script_args = [\"{rules}\"]\nsandbox.read_only_paths = [\"{rules}\"]\n\
         scan.failure_exit_codes = [2, 126, 127]"
    );
    let shipped = include_str!("../../config/yara.sh");
    let (head, body) = shipped.split_once("\nif ").unwrap();
    let script = format!("{head}\nscan() (\nif {body})\n{UNPACKING}");
    ScriptSetup { script: &script, config: &config }.assert_verdicts();
}

//! Configurations inside manifests, removal commands, and scripts that pass files to clamd.

use super::*;

#[test]
fn finds_the_configuration_in_a_manifest() {
    let old = OldDirectory::new();
    let config = "web: {port: 8081}\nscan:\n  script: ./scan.sh\n  scipt: x\ncrypto: {request_secret_path: request_secret}\n";
    let indented = |text: &str, by: &str| {
        format!("{by}{}\n", text.trim_end().replace('\n', &format!("\n{by}")))
    };
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n";
    let other = "apiVersion: v1\nkind: Service\nspec: {ports: [{port: 80}], web: {}}\n";
    for (manifest, path, line) in [
        (format!("{map}data:\n  c.yaml: |\n{}", indented(config, "    ")), "data.c.yaml", 9),
        (
            format!("{other}---\n{map}data:\n  c.yaml: |-\n{}", indented(config, "    ")),
            "data.c.yaml",
            13,
        ),
        (
            format!("items:\n- {other}- data:\n    c: |\n{}", indented(config, "      "))
                .replace("\nkind: S", "\n  kind: S")
                .replace("\nspec", "\n  spec"),
            "items[1].data.c",
            10,
        ),
        (format!("mcs:\n  config:\n{}", indented(config, "    ")), "mcs.config", 6),
    ] {
        let migrated = old.migrate(&manifest);
        assert_eq!(migrated.path.as_deref(), Some(path), "{manifest}");
        assert_eq!(
            remarks(&migrated),
            [format!(
                "line {line}: scan.scipt: a key unknown to that scanner; omitted; did you mean scan.script?"
            )],
            "{manifest}"
        );
        assert_eq!(parsed(&migrated)["web"]["port"].as_integer(), Some(8081), "{manifest}");
        let header = migrated.toml.replace("\n# ", " ");
        assert!(header.contains(&format!("({path}), the configuration of the Python")), "{header}");
    }
    assert_eq!(old.migrate(config).path, None);
}

#[test]
fn rejects_files_without_exactly_one_configuration() {
    let config = "web: {port: 1}\n  scan: {script: a}\n";
    let several = format!("a:\n  {config}b:\n  {config}");
    let reject = |text: &str| match migrate(text, Path::new("x"), Path::new("/"), &accept) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted: {text}"),
    };
    assert_eq!(
        reject(&several),
        "contains several configurations: a (line 2), b (line 5); write one of them to a file of its own"
    );
    // Other programs have sections with these names.
    for text in [
        "services:\n  web: {image: x}\n",
        "a: {scan: {script: x}}\n",
        "a: |\n  web: [\n  scan: {script: x}\n",
    ] {
        assert!(reject(text).starts_with("neither scanner's configuration"), "{text}");
    }
    assert_eq!(reject("a: {{ .Values.b }}\nc: {{- d }}\n"), MigrateError::Template.to_string());
}

#[test]
fn removal_commands_that_overwrite_are_omitted() {
    let old = OldDirectory::new();
    for command in ["rm", "/bin/rm -f", "shred -u", "srm", "/usr/bin/wipe -f", "unlink"] {
        let yaml = format!("web: {{}}\nscan: {{script: ./scan.sh, removal_command: {command}}}\n");
        let migrated = old.migrate(&yaml);
        assert_eq!(
            remarks(&migrated),
            [
                "line 2: scan.removal_command: not needed: each file is always removed, with everything that the script wrote"
            ],
            "{command}"
        );
        assert_eq!(parsed(&migrated)["scan"].get("removal_command"), None, "{command}");
    }
}

#[test]
fn clamd_is_offered_for_scripts_that_pass_files_to_it() {
    let old = OldDirectory::new();
    let python = "web: {port: 1}\nscan: {script: ./scan.sh}\n";
    let node = "server: {port: 1}\nscan: {script: './scan.sh --all'}\n";
    for (script, address) in [
        ("#!/usr/bin/python3\ns.connect(('clamav', 3310)); s.send(b'zINSTREAM')\n", "clamav:3310"),
        ("#!/bin/sh\nclamdscan --stream \"$1\"\n", "/run/clamav/clamd.ctl"),
    ] {
        old.script(script);
        for yaml in [python, node] {
            let migrated = old.migrate(yaml);
            let offered: Vec<_> = migrated
                .remarks
                .iter()
                .filter(|remark| remark.kind == RemarkKind::Suggestion)
                .collect();
            assert_eq!(offered.len(), 1, "{script}");
            assert!(
                offered[0].to_string().starts_with("line 2: scan.script: passes files to clamd: "),
                "{}",
                offered[0]
            );
            assert!(offered[0].message.ends_with(&format!("({address})")), "{}", offered[0]);
            for line in [
                "# engines = [\"clamd\"]",
                &format!("# addresses = [\"{address}\"]"),
                "engines = [\"script\"]",
            ] {
                assert!(
                    migrated.toml.lines().any(|found| found == line),
                    "{line}: {}",
                    migrated.toml
                );
            }
        }
    }
    old.script("#!/bin/sh\nclamscan \"$1\"\n");
    assert!(!old.migrate(python).toml.contains("[clamd]"));
}

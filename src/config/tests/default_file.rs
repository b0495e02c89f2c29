//! `config/default.toml`: complete, true, and good to start from.

use super::*;

const TEXT: &str = include_str!("../../../config/default.toml");

fn load(text: &str) -> (Config, Vec<Warning>) {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("rules")).unwrap();
    folder.file("rules/some.yar", "rule Some { condition: true }", 0o644);
    let (config, warnings) = folder.load_with(text, &[]).unwrap();
    (config, warnings)
}

#[test]
fn it_loads_from_the_checkout_with_rules_that_know_the_test_file() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default.toml");
    let (config, _) = Config::load(Some(&file), std::iter::empty()).unwrap();
    assert!(config.scan.rules().unwrap().rules.names().contains("EICAR_Test_File"));
    assert_eq!(config.scan.engines.len(), 1);
}

#[test]
fn it_writes_the_defaults_that_are_built_in() {
    let without_paths = |text: String| {
        let line = |line: &&str| !line.contains("_path = ") && !line.contains("paths = [\"");
        text.lines().filter(line).map(str::to_owned).collect::<Vec<_>>()
    };
    let built_in =
        "rules.paths = ['rules']\ncrypto = { request_secret_path = 'k', generate = true }";
    assert_eq!(
        without_paths(load(TEXT).0.to_string()),
        without_paths(load(built_in).0.to_string())
    );
}

#[test]
fn it_has_every_key() {
    let folder = Folder::new();
    let file = folder.file("config.toml", TEXT, 0o644);
    let sources = Sources::gather(Some(&file), std::iter::empty()).unwrap();
    let (_, findings) = Config::read(sources.parse().unwrap(), ROOT);
    let mut section = "";
    let mut written = Vec::new();
    for line in TEXT.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            written.push((section, key));
        }
    }
    let mut known = findings.known;
    known.retain(|key| *key != ("sandbox", "limits"));
    known.sort_unstable();
    known.dedup();
    written.sort_unstable();
    assert_eq!(written, known);
}

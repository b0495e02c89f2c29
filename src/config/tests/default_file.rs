//! `config/default.toml` is complete, correct and loadable.

use super::*;

const TEXT: &str = include_str!("../../../config/default.toml");

fn load(text: &str) -> (Config, Vec<Warning>) {
    let dir = ConfigDir::new();
    fs::create_dir(dir.path().join("rules")).unwrap();
    dir.file("rules/some.yar", "rule Some { condition: true }", 0o644);
    let (config, warnings) = dir.load_with(text, &[]).unwrap();
    (config, warnings)
}

#[test]
fn loads_from_checkout_with_eicar_rule() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default.toml");
    let (config, _) = Config::load(Some(&file), std::iter::empty()).unwrap();
    assert!(config.scan.rules().unwrap().rules.names().contains("EICAR_Test_File"));
    assert_eq!(config.scan.engines.len(), 1);
}

#[test]
fn states_builtin_defaults() {
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
fn states_default_limits_of_the_sandbox_crate() {
    assert_eq!(load(TEXT).0.sandbox.limits, mcs_sandbox::ResourceLimits::default());
}

#[test]
fn names_the_keys_that_are_set_without_being_defaults() {
    let (introduction, _) = TEXT.split_once("\n[web]").unwrap();
    let introduction = introduction.replace("\n#", "");
    for (section, key) in source::WITHOUT_DEFAULT {
        assert!(introduction.contains(&format!("{section}.{key}")), "{section}.{key}");
    }
}

#[test]
fn lists_every_key() {
    let dir = ConfigDir::new();
    let file = dir.file("config.toml", TEXT, 0o644);
    let sources = Sources::collect(Some(&file), std::iter::empty()).unwrap();
    let (_, diagnostics) = Config::read(sources.parse(ROOT).unwrap());
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
    let mut known = diagnostics.known;
    known.retain(|key| *key != ("sandbox", "limits"));
    known.sort_unstable();
    known.dedup();
    written.sort_unstable();
    assert_eq!(written, known);
}

//! The manifests for Kubernetes.

use std::fs;

use matrix_content_scanner::config::Config;
use saphyr_parser::{Event, Parser};
use toml::Table;

use super::{read, repo_path};

/// Returns the scalars of all documents in order: keys, and values that are no mappings or sequences.
fn yaml_scalars(text: &str) -> Vec<String> {
    let scalar = |event| match event {
        Event::Scalar(text, ..) => Some(text.into_owned()),
        _ => None,
    };
    let events = Parser::new_from_str(text).map(|event| event.expect("YAML").0);
    events.filter_map(scalar).collect()
}

#[test]
fn kubernetes_manifests_agree_with_the_program_the_image_and_the_guide() {
    const SECRETS: &str = "/run/secrets/matrix-content-scanner";
    const RULES: &str = "/usr/share/matrix-content-scanner/rules";
    let manifests = read(&repo_path("packaging/kubernetes.yaml"));
    let scalars = yaml_scalars(&manifests);
    let has = |key: &str, value: &str| scalars.windows(2).any(|pair| pair == [key, value]);
    let position = scalars.iter().position(|scalar| scalar == "config.toml").expect("a file");
    let config = &scalars[position + 1];

    // The program accepts the configuration, with the paths of the image replaced by those of this machine.
    assert!(has("mountPath", SECRETS) && config.contains(RULES));
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("config.toml");
    let local = config.replace(SECRETS, directory.path().to_str().unwrap());
    let local = local.replace(RULES, repo_path("config/rules").to_str().unwrap());
    fs::write(&file, local).expect("write the configuration");
    let loaded = Config::load(Some(&file), std::iter::empty());
    loaded.unwrap_or_else(|errors| panic!("{errors:?}"));

    let dockerfile = read(&repo_path("packaging/Dockerfile"));
    assert!(dockerfile.contains(&format!("COPY config/rules {RULES}")));
    let config: Table = config.parse().expect("TOML");
    let ports = ["web", "operations"].map(|section| config[section]["port"].to_string());
    assert!(dockerfile.contains(&format!("EXPOSE {}", ports.join(" "))), "{ports:?}");
    assert!(ports.iter().all(|port| has("containerPort", port)), "{ports:?}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(has("image", &format!("registry.example.org/matrix-content-scanner:{version}")));
    // The Secret has the files that the configuration names.
    for (section, key) in
        [("crypto", "request_secret_path"), ("store", "password_path"), ("store", "secret_path")]
    {
        let path = config[section][key].as_str().unwrap();
        let name = path.strip_prefix(SECRETS).unwrap().trim_start_matches('/');
        assert!(manifests.contains(&format!("--from-file={name}")), "{name}");
    }
    let url = config["store"]["urls"][0].as_str().unwrap();
    let (service, port) = url.rsplit_once('@').unwrap().1.split_once(':').unwrap();
    assert!(has("name", service) && has("containerPort", port), "{url}");

    // The user of the store has the same permissions in the manifests and in the guide.
    let guide = read(&repo_path("docs/replicas.md"));
    let user = |text: &str| {
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.split_once("printf 'user default off"));
        line.expect("an ACL").1.to_owned()
    };
    assert_eq!(user(&manifests), user(&guide));
}

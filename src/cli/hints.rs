//! Hints: a line after an error that says what the operator can do.

use std::{io, path::Path};

use super::arguments::DEFAULT_CONFIG;
use crate::{
    app::StartError,
    config::Config,
    http::listener::BindError,
    scan::canary::{CanaryError, THE_SCRIPT},
};

/// For `store` without the listener.
pub(super) const ADMIN_OFF: &str = "set admin.enabled = true, admin.token_path and audit.path in the configuration, and restart the service";

/// For `generate-key` with an existing file.
pub(super) const KEY_EXISTS: &str = "an existing key is never overwritten, since clients encrypt for it; choose another path, or move the file";

/// Returns the hint for an error at startup.
pub(super) fn for_start(error: &StartError) -> Option<String> {
    match error {
        StartError::Listen(error) => for_listener("web", error),
        StartError::Operations(error) => for_listener("operations", error),
        _ => None,
    }
}

fn for_listener(section: &str, error: &BindError) -> Option<String> {
    let (address, source) = match error {
        BindError::Bind { address, source } => (address, source),
        BindError::Resolve { .. } => {
            return Some(format!(
                "set {section}.host to an address of this machine, or to a name that resolves to one"
            ));
        }
        BindError::NotASocket(_) => {
            return Some(format!("remove that file, or change {section}.socket"));
        }
    };
    let (key, is_tcp) = if address.starts_with('/') { ("socket", false) } else { ("port", true) };
    Some(match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens there (`ss -l{} -p` shows it): stop it, or change {section}.{key}",
            if is_tcp { "tn" } else { "x" }
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("set {section}.host to an address of this machine (`ip address` lists them)")
        }
        io::ErrorKind::PermissionDenied if is_tcp => format!(
            "ports below 1024 require root or CAP_NET_BIND_SERVICE: set {section}.port to a higher one, and let the \
             reverse proxy use the lower one"
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => {
            format!(
                "set {section}.socket to a path in an existing folder that this user may write to"
            )
        }
        _ => return None,
    })
}

/// Returns the hint for a failed canary.
pub(super) fn for_canary(error: &CanaryError, config: &Config) -> String {
    let (CanaryError::InfectedPassed(engine)
    | CanaryError::PackedPassed(engine)
    | CanaryError::CleanRefused(engine, _)
    | CanaryError::NoVerdict { engine, .. }) = error;
    let check = match &config.scan.script {
        Some(script) if *engine == THE_SCRIPT => {
            format!("check with `matrix-content-scanner sandbox -- {} FILE`", script.display())
        }
        _ if *engine == "rules" => {
            "check rules.paths and rules.ignore with `matrix-content-scanner scan FILE`".to_owned()
        }
        _ => format!("check that {engine} runs at the configured address, and its log"),
    };
    match error {
        CanaryError::InfectedPassed(_) => format!(
            "all files would pass. Signatures may be missing, or not visible in the sandbox: {check}. An engine that does not \
             detect the EICAR test file needs its own samples in scan.canary"
        ),
        CanaryError::PackedPassed(_) => format!(
            "archives would pass: {check}. unpack.enabled = false switches unpacking off, and this check"
        ),
        CanaryError::CleanRefused(..) => {
            format!("no file would pass: {check}; the samples are set in scan.canary")
        }
        CanaryError::NoVerdict { .. } => {
            format!("{check}, with any file; the samples are set in scan.canary")
        }
    }
}

/// Returns the hint for an invalid configuration in `file`, or for none if no file was found.
pub(super) fn for_config(file: Option<&Path>) -> Option<String> {
    let Some(file) = file else {
        return Some(format!(
            "{DEFAULT_CONFIG} does not exist, and no other file was given (-c FILE). config/default.toml lists every key; \
             packages install it in /usr/share/matrix-content-scanner"
        ));
    };
    let is_yaml =
        file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    is_yaml.then(|| {
        let file = file.display();
        format!(
            "to convert the configuration of an earlier scanner, run `matrix-content-scanner migrate {file} -o config.toml`"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::scan::ScanError;

    #[test]
    fn hint_for_a_failed_canary_names_what_to_check() {
        let mut config = Config::for_test();
        config.scan.script = Some("/opt/scan.sh".into());
        for (engine, check) in [
            (THE_SCRIPT, "`matrix-content-scanner sandbox -- /opt/scan.sh FILE`"),
            ("rules", "check rules.paths and rules.ignore"),
            ("clamd", "check that clamd runs at the configured address"),
        ] {
            for error in [
                CanaryError::InfectedPassed(engine),
                CanaryError::PackedPassed(engine),
                CanaryError::CleanRefused(engine, String::new()),
                CanaryError::NoVerdict {
                    engine,
                    servers: Vec::new(),
                    sample: "clean",
                    source: Arc::new(ScanError::NotReady),
                },
            ] {
                let hint = for_canary(&error, &config);
                assert!(hint.contains(check), "{hint}");
            }
        }
    }
}

//! What to do next: a line after an error whose message alone leaves that open.

use std::{error::Error, io, path::Path};

use matrix_content_scanner::{
    app::StartError,
    config::Config,
    http::listener::BindError,
    scan::canary::{CanaryError, THE_SCRIPT},
};

use crate::cli::DEFAULT_CONFIG;

/// After an error of the start.
pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<String> {
    match error.downcast_ref()? {
        StartError::Listen(error) => of_listener("web", error),
        StartError::Operations(error) => of_listener("operations", error),
        _ => None,
    }
}

fn of_listener(section: &str, error: &BindError) -> Option<String> {
    let (at, source) = match error {
        BindError::Bind { at, source } => (at, source),
        BindError::Resolve { .. } => {
            return Some(format!("{section}.host is an address of this machine, or a name of one"));
        }
        BindError::NotASocket(_) => {
            return Some(format!("remove that file, or change {section}.socket"));
        }
    };
    let (key, is_tcp) = if at.starts_with('/') { ("socket", false) } else { ("port", true) };
    Some(match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens there (`ss -l{} -p` tells which): stop it, or change {section}.{key}",
            if is_tcp { "tn" } else { "x" }
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{section}.host is no address of this machine (`ip address` lists them)")
        }
        io::ErrorKind::PermissionDenied if is_tcp => format!(
            "ports below 1024 are root's, or take CAP_NET_BIND_SERVICE: change {section}.port, and let the reverse proxy \
             have that one"
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => {
            format!("{section}.socket lies in a folder that exists and that this user may write")
        }
        _ => return None,
    })
}

/// After the canary's wrong answer.
pub(crate) fn of_canary(error: &CanaryError, config: &Config) -> String {
    let (CanaryError::InfectedPassed(engine)
    | CanaryError::CleanRefused(engine, _)
    | CanaryError::NoVerdict(engine, ..)) = error;
    let look = match &config.scan.script {
        Some(script) if *engine == THE_SCRIPT => {
            format!("look with `matrix-content-scanner sandbox -- {} FILE`", script.display())
        }
        _ => format!("look whether {engine} runs where the configuration says, and what it logs"),
    };
    match error {
        CanaryError::InfectedPassed(_) => format!(
            "everything would pass. Signatures may be missing, or out of the sandbox's sight: {look}. Who does not know the \
             EICAR test file needs samples of its own in scan.canary"
        ),
        CanaryError::CleanRefused(..) => {
            format!("nothing would pass: {look}; the samples are set in scan.canary")
        }
        CanaryError::NoVerdict(..) => {
            format!("{look}, with any file; the samples are set in scan.canary")
        }
    }
}

/// After a wrong configuration, of this file.
pub(crate) fn of_configuration(file: Option<&Path>) -> Option<String> {
    let Some(file) = file else {
        return Some(format!(
            "there is no {DEFAULT_CONFIG}, and no other file was named (-c FILE). config/default.toml has every key to begin with; \
             packages put it into /usr/share/matrix-content-scanner"
        ));
    };
    let is_yaml = file.extension().is_some_and(|it| it == "yaml" || it == "yml");
    is_yaml.then(|| {
        let file = file.display();
        format!("an earlier scanner's configuration? `matrix-content-scanner migrate {file} -o config.toml` translates it")
    })
}

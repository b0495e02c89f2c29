//! `check-config`: checks the configuration, and tests the sandbox, the engines and the homeservers.

use std::{path::Path, process::ExitCode, sync::Arc};

use mcs_sandbox::{EffectiveLimits, Sandbox};
use nix::unistd::geteuid;

use crate::{
    admin::AdminTokenList,
    app::{self, SandboxEnv, SharedStoreState, StartError},
    cli::{
        arguments::{CheckArguments, Cli, DEFAULT_CONFIG, EXIT_CONFIG},
        check_output::CheckOutput,
        error::CommandError,
        hints, service_unit,
        setup::{LoadedConfig, start_runtime},
    },
    config::Config,
    incident::{IncidentSettings, IncidentSetupError, check_secrets},
    keys::{self, RequestKey},
    media::{HomeserverCheck, HomeserverFinding, check_homeservers, homeserver_mistakes},
    scan::{canary::Canary, engines::RemoteEngines},
};

pub(crate) fn run(cli: &Cli, arguments: CheckArguments) -> Result<ExitCode, CommandError> {
    let LoadedConfig { file, config, warnings, .. } = LoadedConfig::load(cli)?;
    let output = CheckOutput::new(cli.terminal(), arguments.show);
    if arguments.show {
        output.config(&config)?;
    }
    for warning in &warnings {
        output.note(warning);
    }
    if geteuid().is_root() {
        let file = file.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
        for note in service_unit::notes(file, &config) {
            output.note(note);
        }
    }
    let check = check(&output, &config, arguments.offline);
    let is_good = start_runtime()?.block_on(check)?;
    if !is_good {
        return Ok(ExitCode::from(EXIT_CONFIG));
    }
    output.good("OK");
    Ok(ExitCode::SUCCESS)
}

/// Returns whether all homeservers that answer are homeservers.
async fn check(
    output: &CheckOutput,
    config: &Config,
    is_offline: bool,
) -> Result<bool, CommandError> {
    // Does not generate a missing key: the check has no side effects.
    let key = RequestKey::load_existing(&config.crypto).map_err(StartError::from)?;
    let (key, mut notices) = key.map_or((None, vec![]), |(key, notices)| (Some(key), notices));
    let store = match &config.store {
        Some(settings) => {
            Some(app::check_store(settings, key.as_ref()).await.map_err(StartError::from)?)
        }
        None => None,
    };
    notices.extend(store.iter().flat_map(|store| store.notices.clone()));
    for notice in &notices {
        output.note(notice);
    }
    if key.is_none() {
        print_missing_key(output, &config.crypto);
    }
    if let Some(admin) = &config.admin {
        AdminTokenList::load(&admin.token_path).map_err(StartError::from)?;
    }
    if let Some(incidents) = IncidentSettings::from_config(config) {
        let checked = check_secrets(&incidents).map_err(IncidentSetupError::from);
        checked.map_err(StartError::from)?;
    }
    for name in app::unknown_types(config) {
        output.note(format_args!("{name}: no file is ever detected as this type"));
    }
    let is_good = print_homeservers(output, config, is_offline).await?;
    let sandbox_env = SandboxEnv::for_command(config, None).await?;
    print_sandbox(output, &sandbox_env.sandbox);
    let engines = app::remote_engines(config).await.map_err(StartError::from)?;
    print_engines(output, config, &engines);
    if let Some(state) = store.and_then(|store| store.shared) {
        print_shared_store(output, &state);
    }
    check_canary(output, config, &sandbox_env, &engines).await?;
    Ok(is_good)
}

/// Describes a request key that does not exist yet. Its folder may be missing too, since systemd creates the state
/// directory at the first start.
fn print_missing_key(output: &CheckOutput, settings: &keys::Settings) {
    output.highlighted_detail(
        "the request key does not exist yet: it is generated at the first start",
    );
    if let keys::Settings::RequestSecret { path, .. } = settings
        && let Some(folder) = path.parent().filter(|folder| !folder.exists())
    {
        output.note(format_args!(
            "crypto.request_secret_path: the folder {} must exist at the first start (the package's unit creates it)",
            folder.display()
        ));
    }
}

/// Prints what answers at the base URLs. Returns whether none of them is wrong.
async fn print_homeservers(
    output: &CheckOutput,
    config: &Config,
    is_offline: bool,
) -> Result<bool, CommandError> {
    let (download, listen) = (&config.download, &config.web.listen);
    let checks = if is_offline {
        homeserver_mistakes(download, listen)
    } else {
        check_homeservers(download, listen).await.map_err(StartError::from)?
    };
    let mut is_good = true;
    for HomeserverCheck { key, url, state } in checks {
        let key = match url {
            Some(url) => format!("{key}: {}", url.as_str().trim_end_matches('/')),
            None => key,
        };
        match state {
            HomeserverFinding::Good { .. } => {
                output.good_detail(format_args!("{key} is a homeserver"));
            }
            HomeserverFinding::Unreachable(reason) => output.note(format_args!("{key}: {reason}")),
            HomeserverFinding::Wrong(reason) => {
                is_good = false;
                output.error(format_args!("{key}: {reason}"));
            }
        }
    }
    Ok(is_good)
}

/// Prints the layers of the sandbox and the limits of its jobs.
fn print_sandbox(output: &CheckOutput, sandbox: &Sandbox) {
    output.detail("sandbox:");
    for (layer, state) in sandbox.layers().states() {
        let line = format!("  {layer}: {state}");
        if state.starts_with("OFF") {
            output.highlighted_detail(line);
        } else {
            output.detail(line);
        }
    }
    let limits = sandbox.limits();
    output.detail(limits_text(limits));
    // The default limits are lowered on most machines.
    for note in &limits.notes {
        output.highlighted_detail(format_args!("note: {note}"));
    }
}

/// Formats the limits of each job that are in effect.
fn limits_text(effective: &EffectiveLimits) -> String {
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    format!(
        "limits in effect: processes {}, open_files {}; all tasks (pids.max) {}",
        text(effective.limits.processes),
        text(effective.limits.open_files),
        text(effective.max_tasks)
    )
}

/// Prints the number of rules and the versions of the engines on sockets.
fn print_engines(output: &CheckOutput, config: &Config, engines: &RemoteEngines) {
    if let Some(rules) = config.scan.rules() {
        let (count, ignored) = (rules.rules.names().len(), rules.ignore.len());
        output.detail(format_args!("rules: {count}, {ignored} of them ignored"));
    }
    let observed = app::observed(config);
    if !observed.is_empty() {
        let names = observed.join(", ");
        output.note(format_args!("observed, findings do not refuse media: {names}"));
    }
    for (engine, version) in engines.versions() {
        let version = version.as_deref().unwrap_or("unknown version");
        output.detail(format_args!("{engine}: {version}"));
    }
}

/// Describes the shared store.
fn print_shared_store(output: &CheckOutput, state: &SharedStoreState) {
    let (replica_keys, clock_difference) = match state {
        SharedStoreState::Reachable { replica_keys, clock_difference } => {
            (*replica_keys, *clock_difference)
        }
        SharedStoreState::Unreachable(reason) => {
            output.note(format_args!(
                "store.urls: the shared store cannot be used ({reason}); without it, each replica \
                 scans for itself"
            ));
            return;
        }
    };
    if replica_keys == 1 {
        output.good_detail("shared store: reachable");
    } else {
        output.note(format_args!(
            "crypto: replicas have {replica_keys} different request keys, so clients get \
             MCS_BAD_DECRYPTION from some of them; copy one key to all"
        ));
    }
    if let Some(seconds) = clock_difference {
        output.note(format_args!(
            "store.urls: the clock differs from that of the shared store by {seconds} s, so stored \
             verdicts expire too early or too late; synchronise both"
        ));
    }
}

/// Runs the canary, if one is configured.
async fn check_canary(
    output: &CheckOutput,
    config: &Config,
    sandbox_env: &SandboxEnv,
    engines: &Arc<RemoteEngines>,
) -> Result<(), CommandError> {
    let Some(canary) = config.scan.canary.clone() else { return Ok(()) };
    let context = app::scan_context(config, sandbox_env, engines);
    let context = context.map_err(StartError::from)?;
    Canary::new(context, canary).check().await.map_err(|error| {
        let hint = hints::for_canary(&error, config);
        CommandError::Canary { error, hint }
    })?;
    output.good_detail("canary: every engine detects the infected sample and passes the clean one");
    Ok(())
}

//! `check-config`: prints the effective configuration, and tests the sandbox and the engines.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use mcs_sandbox::{EffectiveLimits, Sandbox};

use crate::{
    admin::AdminToken,
    app::{self, SandboxEnv, SharedStoreState, StartError},
    cli::{
        arguments::Cli,
        error::CommandError,
        hints,
        output::{GOOD, HEADING, NOTE, Painter, print_line},
        setup::{LoadedConfig, start_runtime},
    },
    config::{Config, Warning},
    keys::{self, KeyNotice, RequestKey},
    scan::{canary::Canary, engines::RemoteEngines},
    text::{escape_toml, escape_untrusted},
};

pub(crate) fn run(cli: &Cli) -> Result<ExitCode, CommandError> {
    let LoadedConfig { config, warnings, .. } = LoadedConfig::load(cli)?;
    start_runtime()?.block_on(check(cli.terminal().stdout, &config, &warnings))?;
    Ok(ExitCode::SUCCESS)
}

async fn check(
    painter: Painter,
    config: &Config,
    warnings: &[Warning],
) -> Result<(), CommandError> {
    // Does not generate a missing key: the check has no side effects.
    let key = RequestKey::load_existing(&config.crypto).map_err(StartError::from)?;
    let (key, key_text, mut notices) = match key {
        Some((key, notices)) => (Some(key), String::new(), notices),
        None => (None, missing_key_notice(painter, &config.crypto), vec![]),
    };
    let store = match &config.store {
        Some(settings) => {
            Some(app::check_store(settings, key.as_ref()).await.map_err(StartError::from)?)
        }
        None => None,
    };
    notices.extend(store.iter().flat_map(|store| store.notices.clone()));
    print_config(&mut io::stdout().lock(), painter, config, warnings, &notices, &key_text)?;
    if let Some(admin) = &config.admin {
        AdminToken::load(&admin.token_path).map_err(StartError::from)?;
    }
    for name in app::unknown_types(config) {
        let text = format!("{name}: no file is ever detected as this type");
        print_line(note(painter, &text));
    }
    let sandbox_env = SandboxEnv::for_command(config, None).await?;
    print_sandbox(painter, &sandbox_env.sandbox);
    let engines = app::remote_engines(config).await.map_err(StartError::from)?;
    print_engines(config, &engines);
    if let Some(state) = store.and_then(|store| store.shared) {
        for line in shared_store_lines(painter, &state) {
            print_line(line);
        }
    }
    check_canary(painter, config, &sandbox_env, &engines).await
}

/// Prints the effective configuration as TOML, followed by warnings and notices as comments.
fn print_config(
    out: &mut impl Write,
    painter: Painter,
    config: &Config,
    warnings: &[Warning],
    notices: &[KeyNotice],
    key_text: &str,
) -> io::Result<()> {
    for line in escape_toml(&config.to_string()).lines() {
        let is_section = line.starts_with('[');
        if is_section {
            writeln!(out, "{}", painter.paint(HEADING, line))
        } else {
            writeln!(out, "{line}")
        }?;
    }
    let notes = warnings.iter().map(ToString::to_string);
    let notes = notes.chain(notices.iter().map(ToString::to_string));
    for (index, text) in notes.enumerate() {
        let separator = if index == 0 { "\n" } else { "" };
        writeln!(out, "{separator}{}", note(painter, &text))?;
    }
    write!(out, "{key_text}")?;
    out.flush()
}

/// Describes a request key that does not exist yet. Its folder may be missing too, since systemd creates the state
/// directory at the first start.
fn missing_key_notice(painter: Painter, settings: &keys::Settings) -> String {
    let mut notice =
        "\n# the request key does not exist yet: it is generated at the first start\n".to_owned();
    if let keys::Settings::RequestSecret { path, .. } = settings
        && let Some(folder) = path.parent().filter(|folder| !folder.exists())
    {
        let text = format!(
            "crypto.request_secret_path: create the folder {} before that",
            folder.display()
        );
        notice = format!("{notice}{}\n", note(painter, &text));
    }
    notice
}

/// Prints the layers of the sandbox and the limits of its jobs.
fn print_sandbox(painter: Painter, sandbox: &Sandbox) {
    print_line("\n# sandbox:");
    for (layer, state) in sandbox.layers().states() {
        print_line(layer_line(painter, layer, &state));
    }
    let limits = sandbox.limits();
    print_line(limits_line(limits));
    for text in &limits.notes {
        print_line(note(painter, text));
    }
}

/// Formats the state of a sandbox layer as a comment.
fn layer_line(painter: Painter, layer: &str, state: &str) -> String {
    let line = format!("#   {layer}: {}", escape_untrusted(state));
    if state.starts_with("OFF") { painter.paint(NOTE, line) } else { line }
}

/// Formats the limits of each job that are in effect; the configured ones are printed above.
fn limits_line(effective: &EffectiveLimits) -> String {
    let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    format!(
        "# limits in effect: processes {}, open_files {}; all tasks (pids.max) {}",
        text(effective.limits.processes),
        text(effective.limits.open_files),
        text(effective.max_tasks)
    )
}

/// Prints the number of rules and the versions of the engines on sockets.
fn print_engines(config: &Config, engines: &RemoteEngines) {
    if let Some(rules) = config.scan.rules() {
        let (count, ignored) = (rules.rules.names().len(), rules.ignore.len());
        print_line(format_args!("# rules: {count}, {ignored} of them ignored"));
    }
    let observed = app::observed(config);
    if !observed.is_empty() {
        let names = observed.join(", ");
        print_line(format_args!("# observed, findings do not refuse media: {names}"));
    }
    for (engine, version) in engines.versions() {
        let version = version.as_deref().unwrap_or("unknown version");
        print_line(escape_untrusted(format_args!("# {engine}: {version}")));
    }
}

/// Describes the shared store.
fn shared_store_lines(painter: Painter, state: &SharedStoreState) -> Vec<String> {
    let (replica_keys, clock_difference) = match state {
        SharedStoreState::Reachable { replica_keys, clock_difference } => {
            (*replica_keys, *clock_difference)
        }
        SharedStoreState::Unreachable(reason) => {
            let text = format!(
                "store.urls: the shared store cannot be used ({reason}); without it, each replica \
                 scans for itself"
            );
            return vec![note(painter, &text)];
        }
    };
    let keys = if replica_keys == 1 {
        painter.paint(GOOD, "# shared store: reachable")
    } else {
        let text = format!(
            "crypto: replicas have {replica_keys} different request keys, so clients get \
             MCS_BAD_DECRYPTION from some of them; copy one key to all"
        );
        note(painter, &text)
    };
    let clock = clock_difference.map(|seconds| {
        let text = format!(
            "store.urls: the clock differs from that of the shared store by {seconds} s, so stored \
             verdicts expire too early or too late; synchronise both"
        );
        note(painter, &text)
    });
    [Some(keys), clock].into_iter().flatten().collect()
}

/// Runs the canary, if one is configured.
async fn check_canary(
    painter: Painter,
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
    let text = "# canary: every engine detects the infected sample and passes the clean one";
    print_line(painter.paint(GOOD, text));
    Ok(())
}

/// Formats a note as a comment.
fn note(painter: Painter, text: &str) -> String {
    painter.paint(NOTE, format_args!("# note: {}", escape_untrusted(text)))
}

//! `doctor`: examines everything that the service needs, for operators and monitoring. Needs no running service.

mod engines;
mod store;

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use nix::sys::statvfs::statvfs;
use tokio::time::timeout;

use self::{engines::examine_engines, store::examine_store};

use crate::{
    admin::AdminTokenList,
    app::{self, SandboxEnv},
    chain::Chain,
    cli::{
        arguments::Cli,
        error::CommandError,
        health_report::HealthReport,
        hints,
        setup::{LoadedConfig, start_runtime},
    },
    config::Config,
    keys::RequestKey,
    media::{HomeserverCheck, HomeserverFinding, certificate_end, check_homeservers},
    scan::canary::Canary,
};

/// Time limit for all checks together.
const TIME_LIMIT: Duration = Duration::from_secs(45);

/// Remaining time of a certificate at which most services renew it at the latest.
const MIN_CERTIFICATE_TIME: Duration = Duration::from_secs(14 * DAY);

/// Difference of clocks at which cached permissions and store records of replicas expire at the wrong time.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// Free space below which not even small files can be scanned, bytes.
const MIN_SPACE: u64 = 64 << 20;

const DAY: u64 = 24 * 60 * 60;

/// Exit code: 0 well, 1 degraded, 2 broken.
pub(crate) fn run(cli: &Cli, is_json: bool) -> Result<ExitCode, CommandError> {
    let mut report = HealthReport::default();
    match LoadedConfig::load(cli) {
        Ok(LoadedConfig { config, warnings, .. }) => {
            if warnings.is_empty() {
                report.ok("configuration", "valid");
            }
            for warning in &warnings {
                report.warn("configuration", warning);
            }
            let examination = examine(&mut report, &config);
            let runtime = start_runtime()?;
            let finished = runtime.block_on(async { timeout(TIME_LIMIT, examination).await });
            if finished.is_err() {
                let limit = TIME_LIMIT.as_secs();
                report
                    .fail("doctor", format_args!("the next check did not finish within {limit} s"));
            }
        }
        Err(CommandError::Config { errors, .. }) => {
            for problem in errors.problems() {
                report.fail("configuration", problem);
            }
        }
        Err(other) => report.fail("configuration", Chain(&other)),
    }
    if is_json {
        report.print_json();
    } else {
        report.print(cli.terminal().stdout);
    }
    Ok(ExitCode::from(report.health().exit_code()))
}

async fn examine(report: &mut HealthReport, config: &Config) {
    let key = examine_secrets(report, config);
    examine_disk(report, config);
    examine_homeservers(report, config).await;
    examine_store(report, config, key.as_ref()).await;
    let engines = match app::remote_engines(config).await {
        Ok(engines) => engines,
        Err(error) => return report.fail("engines", Chain(&error)),
    };
    examine_engines(report, &engines.servers());
    let sandbox_env = match SandboxEnv::for_command(config, None).await {
        Ok(sandbox_env) => sandbox_env,
        Err(error) => return report.fail("sandbox", Chain(&error)),
    };
    let missing: Vec<_> = sandbox_env
        .sandbox
        .layers()
        .states()
        .into_iter()
        .filter(|(layer, state)| state.starts_with("OFF") && *layer != "cgroup")
        .map(|(layer, state)| format!("{layer}: {state}"))
        .collect();
    match missing.as_slice() {
        [] => report.ok("sandbox", "all layers that a command can test are active"),
        missing => report.warn("sandbox", missing.join("; ")),
    }
    let Some(canary) = config.scan.canary.clone() else {
        return report.warn("canary", "scan.canary is off, so the engines are not tested");
    };
    match app::scan_context(config, &sandbox_env, &engines) {
        Err(error) => report.fail("canary", Chain(&error)),
        Ok(context) => match Canary::new(context, canary).check().await {
            Ok(()) => report.ok("canary", "every engine detects the infected sample"),
            Err(error) => {
                let hint = hints::for_canary(&error, config);
                report.fail("canary", format_args!("{}; {hint}", Chain(&error)));
            }
        },
    }
}

/// Returns the request key, if it exists.
fn examine_secrets(report: &mut HealthReport, config: &Config) -> Option<RequestKey> {
    if let Some(admin) = &config.admin {
        match AdminTokenList::load(&admin.token_path) {
            Ok(tokens) if tokens.len() == 1 => {
                report.ok("token", "the token of [admin] can be used");
            }
            Ok(tokens) => {
                report.ok("token", format_args!("{} tokens of [admin] can be used", tokens.len()));
            }
            Err(error) => report.fail("token", Chain(&error)),
        }
    }
    match RequestKey::load_existing(&config.crypto) {
        Ok(Some((key, notices))) => {
            for notice in &notices {
                report.warn("key", notice);
            }
            report.ok("key", format_args!("public key {}", key.public_key()));
            Some(key)
        }
        Ok(None) => {
            report.warn("key", "does not exist yet; the first start generates it");
            None
        }
        Err(error) => {
            report.fail("key", Chain(&error));
            None
        }
    }
}

fn examine_disk(report: &mut HealthReport, config: &Config) {
    let (directory, needed) = (&config.scan.temp_directory, config.scan.max_spool_size);
    examine_space(report, "scan.temp_directory", directory, needed);
    let store = config.store.as_ref().and_then(|store| store.file());
    if let Some(folder) = store.and_then(|file| file.path.parent()) {
        examine_space(report, "store.path", folder, MIN_SPACE);
    }
}

fn examine_space(report: &mut HealthReport, key: &str, path: &Path, needed: u64) {
    let statistics = match statvfs(path) {
        Ok(statistics) => statistics,
        Err(error) => {
            return report.fail("disk", format_args!("{key}, {}: {error}", path.display()));
        }
    };
    let free = statistics.blocks_available().saturating_mul(statistics.fragment_size());
    let text = format!("{key}: {} MiB are free in {}", free >> 20, path.display());
    if free < MIN_SPACE {
        report.fail("disk", format_args!("{text}; make room"));
    } else if free < needed {
        report.warn(
            "disk",
            format_args!("{text}, less than the {} MiB that may be used", needed >> 20),
        );
    } else {
        report.ok("disk", text);
    }
}

async fn examine_homeservers(report: &mut HealthReport, config: &Config) {
    let checks = match check_homeservers(&config.download, &config.web.listen).await {
        Ok(checks) => checks,
        Err(error) => return report.fail("homeserver", Chain(&error)),
    };
    for HomeserverCheck { key, url, state } in checks {
        let Some(url) = url else {
            if let HomeserverFinding::Unreachable(reason) = state {
                report.warn("homeserver", format_args!("{key}: {reason}"));
            }
            continue;
        };
        let shown = url.as_str().trim_end_matches('/');
        match state {
            HomeserverFinding::Good { date } => {
                report.ok("homeserver", format_args!("{shown} is a homeserver"));
                let date = date.and_then(|date| httpdate::parse_http_date(&date).ok());
                if let Some(date) = date {
                    examine_clock(report, shown, date);
                }
                if let Some(end) = certificate_end(&config.download, &url).await {
                    examine_certificate(report, shown, end);
                }
            }
            HomeserverFinding::Unreachable(reason) | HomeserverFinding::Wrong(reason) => {
                report.fail("homeserver", format_args!("{key}: {shown}: {reason}"));
            }
        }
    }
}

fn examine_clock(report: &mut HealthReport, other: &str, date: SystemTime) {
    let now = SystemTime::now();
    let difference = now.duration_since(date).or_else(|_| date.duration_since(now));
    let difference = difference.unwrap_or_default();
    let text = format!("differs by {} s from that of {other}", difference.as_secs());
    if difference > MAX_CLOCK_DIFFERENCE {
        report.warn("clock", format_args!("{text}; synchronise both with NTP"));
    } else {
        report.ok("clock", text);
    }
}

fn examine_certificate(report: &mut HealthReport, url: &str, end: SystemTime) {
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
    let text = format!("the certificate of {url} is valid for {} days", left.as_secs() / DAY);
    if left < MIN_CERTIFICATE_TIME {
        report.warn("tls", format_args!("{text}; renew it"));
    } else {
        report.ok("tls", text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::health_report::ServiceHealth;

    #[test]
    fn clock_and_certificate_degrade_beyond_their_bounds() {
        let now = SystemTime::now();
        let state = |examine: &dyn Fn(&mut HealthReport)| {
            let mut report = HealthReport::default();
            examine(&mut report);
            report.health()
        };
        for (seconds, expected) in
            [(0, ServiceHealth::Well), (30, ServiceHealth::Well), (300, ServiceHealth::Degraded)]
        {
            let difference = Duration::from_secs(seconds);
            assert_eq!(state(&|report| examine_clock(report, "h", now + difference)), expected);
            assert_eq!(state(&|report| examine_clock(report, "h", now - difference)), expected);
        }
        for (days, expected) in
            [(30, ServiceHealth::Well), (13, ServiceHealth::Degraded), (0, ServiceHealth::Degraded)]
        {
            let end = now + Duration::from_secs(days * DAY);
            assert_eq!(state(&|report| examine_certificate(report, "h", end)), expected);
        }
    }
}

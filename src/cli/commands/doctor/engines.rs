//! Examination of the remote engines: their servers, and the age of their signatures.

use std::time::{Duration, SystemTime};

use crate::{
    cli::health_report::HealthReport,
    scan::engines::{EngineServer, signature_time},
};

/// Age of signatures that is unusual: the signatures of `ClamAV` are published daily.
const MAX_SIGNATURE_AGE: Duration = Duration::from_secs(3 * DAY);

const DAY: u64 = 24 * 60 * 60;

/// Reports each engine by its name and the states of its servers. An engine works if one server responds.
pub(super) fn examine_engines(
    report: &mut HealthReport,
    engines: &[(&'static str, Vec<EngineServer>)],
) {
    for (engine, servers) in engines {
        let (up, down): (Vec<_>, Vec<_>) = servers.iter().partition(|server| responds(server));
        for server in &down {
            let address = &server.address;
            let reason = server.failure.as_deref().unwrap_or("it is busy");
            let text = format!("{engine} does not answer at {address}: {reason}");
            if up.is_empty() {
                report.fail("engines", format_args!("{text}; check that it runs, and its address"));
            } else {
                report.warn("engines", format_args!("{text}; other servers of the engine answer"));
            }
        }
        for server in up {
            examine_signatures(report, engine, server);
        }
    }
}

fn responds(server: &EngineServer) -> bool {
    server.failure.is_none() && server.version.is_some()
}

fn examine_signatures(report: &mut HealthReport, engine: &str, server: &EngineServer) {
    let (address, version) = (&server.address, server.version.as_deref().unwrap_or_default());
    let age = signature_time(version)
        .map(|time| SystemTime::now().duration_since(time).unwrap_or_default());
    match age {
        Some(age) if age > MAX_SIGNATURE_AGE => report.warn(
            "engines",
            format_args!(
                "{engine} at {address}: the signatures are {} days old ({version}); check freshclam",
                age.as_secs() / DAY
            ),
        ),
        _ => report.ok("engines", format_args!("{engine} at {address}: {version}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::health_report::ServiceHealth;

    fn server(address: &str, version: Option<&str>, failure: Option<&str>) -> EngineServer {
        EngineServer {
            address: address.to_owned(),
            version: version.map(Into::into),
            failure: failure.map(Into::into),
        }
    }

    #[test]
    fn engine_is_degraded_while_one_of_its_servers_responds() {
        let up = server("a:3310", Some("ClamAV 1.4.3"), None);
        let down = server("b:3310", None, Some("cannot connect"));
        let lost = server("c:3310", Some("ClamAV 1.4.3"), Some("the time limit expired"));
        let busy = server("d:3310", None, None);
        let old = server("e:3310", Some("ClamAV 1.4.3/27832/Thu Jan  1 00:00:00 1970"), None);
        for (servers, expected) in [
            (vec![up.clone()], ServiceHealth::Well),
            (vec![up.clone(), down.clone()], ServiceHealth::Degraded),
            (vec![up.clone(), busy.clone()], ServiceHealth::Degraded),
            (vec![up, old], ServiceHealth::Degraded),
            (vec![down, lost, busy], ServiceHealth::Broken),
        ] {
            let mut report = HealthReport::default();
            examine_engines(&mut report, &[("clamd", servers.clone())]);
            assert_eq!(report.health(), expected, "{servers:?}");
        }
    }
}

//! Reasons why a request ends without a verdict; values of a metric label.

/// Defines [`Cause`], so that each variant has a label and states whether it is a fault of this service.
macro_rules! causes {
    ($($cause:ident => ($label:literal, $is_server_fault:literal),)*) => {
        /// Cause of a request for media that ended without a verdict.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Cause {
            $($cause,)*
        }

        impl Cause {
            const ALL: &[Self] = &[$(Self::$cause,)*];

            /// Returns the value of the metrics label `cause`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$cause => $label,)*
                }
            }

            /// Returns whether the cause is a fault of this service or of its engines, which operators are alerted to.
            #[must_use]
            pub fn is_server_fault(self) -> bool {
                match self {
                    $(Self::$cause => $is_server_fault,)*
                }
            }
        }
    };
}

causes! {
    NotReady => ("not_ready", true),
    Overloaded => ("overloaded", true),
    NoResources => ("no_resources", true),
    SpoolFull => ("spool_full", true),
    DeadlineQueued => ("deadline_queued", true),
    DeadlineDownloading => ("deadline_downloading", false),
    DeadlineScanning => ("deadline_scanning", true),
    ScriptTimeout => ("script_timeout", true),
    ScriptSignal => ("script_signal", true),
    ScriptExitCode => ("script_exit_code", true),
    EngineTooLarge => ("engine_too_large", false),
    EngineUnreachable => ("engine_unreachable", true),
    EngineBusy => ("engine_busy", true),
    EngineTimeout => ("engine_timeout", true),
    EngineConnectionLost => ("engine_connection_lost", true),
    EngineBadResponse => ("engine_bad_response", true),
    EngineError => ("engine_error", true),
    EngineNotRun => ("engine_not_asked", true),
    NoEngine => ("no_engine", true),
    Encrypted => ("encrypted", false),
    Limit => ("limit", false),
    Unreadable => ("unreadable", false),
    Inconsistent => ("inconsistent", false),
    Sandbox => ("sandbox", true),
    Disk => ("disk", true),
    Panicked => ("panicked", true),
    Stopping => ("stopping", false),
    HashMismatch => ("hash_mismatch", false),
    CounterWraps => ("counter_wraps", false),
    MissingToken => ("missing_token", false),
    UnknownToken => ("unknown_token", false),
    NotFound => ("not_found", false),
    Refused => ("refused", false),
    TooLarge => ("too_large", false),
    Unreachable => ("unreachable", false),
    ForbiddenAddress => ("forbidden_address", false),
    Upstream => ("upstream", false),
    TruncatedBody => ("broken_off", false),
    NotMedia => ("not_media", false),
    NotYetUploaded => ("not_yet_uploaded", false),
    TimedOut => ("timed_out", false),
}

/// Returns the labels of the server's faults. Their series exist from the start, so that alerts see the first increase.
pub(crate) fn server_faults() -> impl Iterator<Item = &'static str> {
    Cause::ALL.iter().filter(|cause| cause.is_server_fault()).map(|cause| cause.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_have_distinct_labels_and_alerts_cover_all_faults() {
        let labels: std::collections::BTreeSet<_> =
            Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        assert_eq!(labels.len(), Cause::ALL.len());
        assert!(labels.contains("engine_unreachable"));
        let alerts = include_str!("../config/monitoring/alerts.yml");
        let pattern =
            alerts.lines().filter_map(|line| line.split_once("cause=~\"")?.1.split_once('"'));
        let alternatives: Vec<_> =
            pattern.flat_map(|(pattern, _)| expand_alternatives(pattern)).collect();
        let is_covered = |label: &str| {
            alternatives.iter().any(|alternative| match alternative.strip_suffix(".*") {
                Some(prefix) => label.starts_with(prefix),
                None => label == alternative,
            })
        };
        for label in server_faults().filter(|label| *label != "not_ready") {
            assert!(is_covered(label), "no alert for {label}");
        }
    }

    /// Expands a pattern of the alerts: alternatives, of which the last part may be a group of alternatives.
    fn expand_alternatives(pattern: &str) -> Vec<String> {
        let mut expanded = Vec::new();
        let mut prefix = "";
        for part in pattern.split('|') {
            let last = match part.split_once('(') {
                Some((before, first)) => {
                    prefix = before;
                    first
                }
                None => part,
            };
            let end = last.strip_suffix(')');
            expanded.push(format!("{prefix}{}", end.unwrap_or(last)));
            if end.is_some() {
                prefix = "";
            }
        }
        expanded
    }

    #[test]
    fn alternatives_are_expanded() {
        let expanded = expand_alternatives("script_.*|engine_(busy|error)|disk");
        assert_eq!(expanded, ["script_.*", "engine_busy", "engine_error", "disk"]);
    }
}

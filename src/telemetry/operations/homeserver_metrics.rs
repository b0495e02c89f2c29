//! Metrics of the configured homeservers. Their names come from the configuration alone, so that the number of series is
//! bounded.

use std::{fmt, sync::Arc};

use super::page::Page;
use crate::media::{HomeserverStatus, MediaResponses};

/// Encodes the metrics of the configured homeservers.
pub(super) fn homeservers(page: &mut Page<'_>, statuses: &[Arc<HomeserverStatus>]) -> fmt::Result {
    let reachable = statuses.iter().filter_map(|status| {
        Some(([("homeserver", status.name())], u64::from(status.is_reachable()?)))
    });
    let help = "Whether the latest request to the configured homeserver got a response; absent before the first";
    page.gauges("mcs_homeserver_reachable", help, reachable)?;
    let responses = statuses.iter().flat_map(|status| {
        status.media_responses().into_iter().flat_map(|(route, responses)| {
            let MediaResponses { recognized, unrecognized } = responses;
            [("recognized", recognized), ("unrecognized", unrecognized)].map(|(result, number)| {
                ([("homeserver", status.name()), ("route", route), ("result", result)], number)
            })
        })
    });
    let help = "Responses of configured homeservers to requests for media, by route; unrecognized: the server does not support it";
    page.counters("mcs_homeserver_media_responses", help, responses)
}

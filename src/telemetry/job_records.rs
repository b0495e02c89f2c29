//! Records finished jobs in the metrics and the audit log.

use std::{sync::Arc, time::SystemTime};

use mcs_filetype::MediaType;

use super::audit::{AuditLog, AuditRecord};
use crate::{
    media::Variant,
    metrics::{CacheHit, Metrics},
    scan::{
        engines::{EngineReport, EngineSummary},
        job::JobOutcome,
        report::{JobObserver, JobReport},
        verdict::{NotCleanKind, Verdict},
    },
};

/// Returns the observer that records each job.
#[must_use]
pub(crate) fn observer(metrics: Arc<Metrics>, audit: Option<AuditLog>) -> JobObserver {
    Arc::new(move |report| {
        record_metrics(&metrics, report);
        if let Some(audit) = &audit
            && let Some(record) = audit_record(report)
        {
            audit.record(&record);
        }
    })
}

fn record_metrics(metrics: &Metrics, report: &JobReport<'_>) {
    let verdict = verdict_name(report);
    let script = report.run.and_then(|run| run.script_duration);
    metrics.jobs.record(verdict.unwrap_or("no_verdict"), report.timings, script);
    for EngineReport { summary, is_observed } in report.run.iter().flat_map(|run| &run.results) {
        let EngineSummary { engine, result, duration, .. } = summary;
        metrics.jobs.record_engine(engine, result, *duration);
        if *is_observed {
            metrics.jobs.record_observed(engine);
        }
    }
    let has_details = report.run.is_some_and(|run| run.verdict_details.is_some());
    // A forbidden type is no result of the engines.
    if matches!(
        report.outcome,
        Ok(JobOutcome { verdict: Ok(Verdict::Clean { .. } | Verdict::NotClean { .. }), .. })
    ) && !has_details
    {
        metrics.http.record_cache_hit(CacheHit::Verdict);
    }
}

/// Returns the audit record of a job with a verdict.
fn audit_record<'a>(report: &JobReport<'a>) -> Option<AuditRecord<'a>> {
    let (verdict, outcome) = (verdict_name(report)?, report.outcome.ok()?);
    let not_clean = outcome.verdict.as_ref().ok().and_then(Verdict::not_clean_kind);
    let details = report.run.and_then(|run| run.verdict_details.as_ref());
    let fetch = &report.request.fetch;
    Some(AuditRecord {
        time: SystemTime::now(),
        media: &fetch.media,
        origin: &fetch.origin,
        thumbnail: fetch.variant != Variant::Original,
        encrypted: report.request.decryption.is_some(),
        sha256: &outcome.media.content,
        size: outcome.media.size,
        detected: outcome.media.detected.as_ref().map(MediaType::as_str),
        verdict,
        not_clean: not_clean.map(NotCleanKind::name),
        exit_code: details.and_then(|(code, _)| *code),
        first_line: details.map(|(_, line)| line.as_str()),
        took: report.run.and_then(|run| run.script_duration),
        engines: report.run.map(|run| run.results.as_slice()).unwrap_or_default(),
    })
}

/// Returns the name of the job's verdict; `None` if the job ended without a verdict.
fn verdict_name(report: &JobReport<'_>) -> Option<&'static str> {
    match report.outcome {
        Ok(JobOutcome { verdict: Ok(verdict), .. }) => Some(verdict.name()),
        Ok(JobOutcome { verdict: Err(_), .. }) | Err(_) => None,
    }
}

//! Records finished jobs, and answers without one, in the metrics and the audit log.

use std::{sync::Arc, time::SystemTime};

use mcs_filetype::MediaType;

use super::{audit::AuditRecord, request_audit::RequestAudit};
use crate::{
    media::Variant,
    metrics::{CacheHit, Metrics},
    scan::{
        ResponseSource, ScanRequest, Wants,
        cached_media::CachedMedia,
        engines::{EngineReport, EngineSummary},
        job::JobOutcome,
        report::{AnswerObserver, AnswerReport, JobObserver, JobReport},
        verdict::{NotCleanKind, Verdict},
    },
};

/// Returns the observer that records each job.
#[must_use]
pub(crate) fn observer(metrics: Arc<Metrics>, audit: Option<RequestAudit>) -> JobObserver {
    Arc::new(move |report| {
        record_metrics(&metrics, report);
        if let Some(audit) = &audit
            && let Some(record) = job_record(report)
        {
            audit.record(&report.request.fetch, &record);
        }
    })
}

/// Returns the observer that records each answer without a job of its own.
#[must_use]
pub(crate) fn answer_observer(audit: RequestAudit) -> AnswerObserver {
    Arc::new(move |report| {
        let source = match report.source {
            ResponseSource::Cache => "memory",
            ResponseSource::SharedJob => "shared",
            // The observer of jobs records it.
            ResponseSource::OwnJob => return,
        };
        let AnswerReport { request, media, verdict, .. } = report;
        audit.record(&request.fetch, &answer_record(request, media, verdict, source));
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
fn job_record<'a>(report: &JobReport<'a>) -> Option<AuditRecord<'a>> {
    let outcome = report.outcome.ok()?;
    let verdict = outcome.verdict.as_ref().ok()?;
    let details = report.run.and_then(|run| run.verdict_details.as_ref());
    // The verdict on the content was known, or its type is forbidden.
    let Some(run) = report.run else {
        return Some(answer_record(report.request, &outcome.media, verdict, "verdict"));
    };
    Some(AuditRecord {
        exit_code: details.and_then(|(code, _)| *code),
        first_line: details.map(|(_, line)| line.as_str()),
        took: run.script_duration,
        engines: &run.results,
        ..answer_record(report.request, &outcome.media, verdict, "scan")
    })
}

/// Returns the audit record of a request for which no engine ran.
fn answer_record<'a>(
    request: &'a ScanRequest,
    media: &'a CachedMedia,
    verdict: &'a Verdict,
    source: &'static str,
) -> AuditRecord<'a> {
    let fetch = &request.fetch;
    AuditRecord {
        time: SystemTime::now(),
        media: &fetch.media,
        origin: &fetch.origin,
        thumbnail: fetch.variant != Variant::Original,
        encrypted: request.decryption.is_some(),
        rescan: request.wants == Wants::Rescan,
        sha256: &media.content,
        size: media.size,
        detected: media.detected.as_ref().map(MediaType::as_str),
        verdict: verdict.name(),
        not_clean: verdict.not_clean_kind().map(NotCleanKind::name),
        source,
        exit_code: None,
        first_line: match verdict {
            Verdict::NotClean { output, .. } => output.lines().next(),
            Verdict::Clean { .. } | Verdict::TypeForbidden { .. } => None,
        },
        took: None,
        engines: &[],
    }
}

/// Returns the name of the job's verdict; `None` if the job ended without a verdict.
fn verdict_name(report: &JobReport<'_>) -> Option<&'static str> {
    match report.outcome {
        Ok(JobOutcome { verdict: Ok(verdict), .. }) => Some(verdict.name()),
        Ok(JobOutcome { verdict: Err(_), .. }) | Err(_) => None,
    }
}

use std::sync::Arc;

use super::*;
use crate::scan::{
    Timings,
    cached_media::MediaHeaders,
    engines::{EngineReport, EngineSummary},
    error::Phase,
    job::JobOutcome,
    report::EngineRunReport,
    verdict::NotCleanKind,
};

fn media() -> Arc<CachedMedia> {
    let headers = MediaHeaders { content_type: None, disposition: None, etag: None };
    Arc::new(CachedMedia::new([7; 32], 9, None, headers))
}

fn infected() -> Verdict {
    Verdict::NotClean { kind: NotCleanKind::Infected, output: "Eicar\u{202e}".into() }
}

fn clean() -> Verdict {
    Verdict::Clean { at: SystemTime::UNIX_EPOCH }
}

fn request() -> ScanRequest {
    ScanRequest::for_test("a.example", Some("token"))
}

fn result((engine, result): (&'static str, &'static str)) -> EngineReport {
    let summary = EngineSummary { engine, result, finding: None, duration: None };
    EngineReport { summary, is_observed: false }
}

fn record(
    recent: &RecentScans,
    outcome: Result<&JobOutcome, &ScanError>,
    results: &[&'static str],
) {
    let run = EngineRunReport {
        results: ["clamd", "rules"].into_iter().zip(results.iter().copied()).map(result).collect(),
        script_duration: None,
        verdict_details: None,
    };
    let run = (!results.is_empty()).then_some(&run);
    let scan = Some(Duration::from_millis(5));
    let timings = Timings { queue: Some(Duration::from_millis(2)), download: None, scan };
    recent.record_job(&JobReport { request: &request(), outcome, timings, run });
}

fn outcome(verdict: Result<Verdict, Arc<ScanError>>) -> JobOutcome {
    JobOutcome { media: media(), verdict, body: None, timings: Timings::default() }
}

fn counts(recent: &RecentScans) -> (u32, u32, u32, u32) {
    let minute = recent.minutes()[0];
    (minute.clean, minute.not_clean, minute.failed, minute.from_memory)
}

#[test]
fn jobs_are_recorded_with_the_engine_that_decided() {
    let recent = RecentScans::default();
    record(&recent, Ok(&outcome(Ok(clean()))), &["clean", "clean"]);
    record(&recent, Ok(&outcome(Ok(infected()))), &["clean", "infected"]);
    record(&recent, Ok(&outcome(Ok(infected()))), &[]);
    record(&recent, Err(&ScanError::Deadline(Phase::Scanning)), &[]);
    record(&recent, Ok(&outcome(Err(Arc::new(ScanError::Limit("x".into()))))), &["limit"]);
    let scans = recent.latest(10, |_| true);
    let summary: Vec<_> =
        scans.iter().rev().map(|scan| (scan.outcome, scan.engine, scan.source)).collect();
    let known = ScanSource::KnownVerdict;
    assert_eq!(
        summary,
        [
            ("clean", None, ScanSource::Scan),
            ("infected", Some("rules"), ScanSource::Scan),
            ("infected", None, known),
            (FAILED, None, known),
            (FAILED, None, ScanSource::Scan),
        ]
    );
    assert_eq!(scans[3].finding.as_deref(), Some("Eicar"), "sanitized");
    assert_eq!(scans[1].finding.as_deref(), Some("deadline_scanning"));
    assert_eq!((scans[1].content, scans[0].content), (None, Some([7; 32])));
    assert_eq!(scans[0].duration, Some(Duration::from_millis(7)));
    assert_eq!(counts(&recent), (1, 2, 2, 0));
    assert_eq!(recent.latest(1, |scan| scan.outcome == "infected").len(), 1);
}

#[test]
fn failures_that_requesters_cause_are_not_recorded() {
    let recent = RecentScans::default();
    record(&recent, Err(&ScanError::HashMismatch), &[]);
    assert!(recent.latest(10, |_| true).is_empty());
}

#[test]
fn answers_from_memory_are_listed_if_they_refuse() {
    let recent = RecentScans::default();
    recent.record_answer(&request(), &media(), &clean());
    assert!(recent.latest(10, |_| true).is_empty());
    recent.record_answer(&request(), &media(), &infected());
    let scans = recent.latest(10, |_| true);
    assert_eq!((scans[0].source, scans[0].duration), (ScanSource::Memory, None));
    assert_eq!(counts(&recent), (0, 1, 0, 1));
}

#[test]
fn number_of_scans_is_bounded_and_the_oldest_go_first() {
    let recent = RecentScans::default();
    record(&recent, Ok(&outcome(Ok(infected()))), &[]);
    for _ in 0..MAX_SCANS {
        record(&recent, Ok(&outcome(Ok(clean()))), &[]);
    }
    let scans = recent.latest(usize::MAX, |_| true);
    assert_eq!(scans.len(), MAX_SCANS);
    assert!(scans.iter().all(|scan| scan.outcome == "clean"));
}

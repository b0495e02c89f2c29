//! Cached media and verdicts.

use std::time::Duration;

use super::{API, BenchSuite, CLEAN_VERDICT, SMALL};
use crate::{
    load::{self, ExpectedBody, RequestSource, get},
    programs::{self, ServerProcess},
    report::{BenchReport, Goal},
};

const ROUNDS: usize = 9;
/// Duration of each load run.
const RUN_TIME: Duration = Duration::from_millis(1500);
const CONNECTIONS: usize = 32;

impl BenchSuite {
    pub(super) async fn warm(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        let media = &self.write_files("warm", 1, SMALL).await[0];
        let service = programs::service(self.dir(), nginx, "").await;
        let baseline = programs::baseline(SMALL).await;
        let body = ExpectedBody::Length(SMALL);
        let download = get(&format!("{API}/download/{}", media.mxc_path()));
        load::run(service.address, 1, &RequestSource::once(vec![download.clone()]), body).await;
        let candidates = [
            (&service, download, body),
            (nginx, get(&format!("/static/{}", media.name)), body),
            (&service, get(&format!("{API}/scan/{}", media.mxc_path())), CLEAN_VERDICT),
            (&baseline, get("/verdict"), CLEAN_VERDICT),
            (nginx, get("/small"), ExpectedBody::Length(2)),
            (&baseline, get("/body"), body),
        ];
        let mut rates = [const { Vec::new() }; 6];
        let mut p99 = [const { Vec::new() }; 6];
        for round in 0..ROUNDS {
            for turn in 0..candidates.len() {
                // Rotates the order, so that no candidate is always first.
                let index = (turn + round) % candidates.len();
                let (program, request, expect) = &candidates[index];
                let requests = RequestSource::repeated(request.clone(), RUN_TIME);
                let outcome = load::run(program.address, CONNECTIONS, &requests, *expect).await;
                rates[index].push(outcome.rate());
                p99[index].push(outcome.percentile(99));
            }
        }
        let [download, nginx_file, verdict, baseline_verdict, nginx_small, baseline_body] = &rates;
        let limit = ("nginx, static", &**nginx_file);
        let name = "download of 100 KiB from memory, 32 connections";
        report.add_comparison(name, "per second", download, limit, Some(Goal::AtLeast(0.9)));
        let limit = ("minimal axum route", &**baseline_body);
        report.add_comparison(name, "per second", download, limit, None);
        let [download, nginx_file, ..] = &p99;
        let limit = ("nginx, static", &**nginx_file);
        report.add_comparison("p99 of these", "ms", download, limit, Some(Goal::AtMost(1.0)));
        let name = "cached verdict, 32 connections";
        let limit = ("minimal axum route", &**baseline_verdict);
        report.add_comparison(name, "per second", verdict, limit, Some(Goal::AtLeast(0.7)));
        let limit = ("nginx, 2 bytes", &**nginx_small);
        report.add_comparison(name, "per second", verdict, limit, None);
    }
}

//! What is in memory.

use std::time::Duration;

use super::{API, Bench, CLEAN, SMALL};
use crate::{
    load::{self, Expect, Requests, get},
    programs::{self, Program},
    report::{Goal, Report},
};

const ROUNDS: usize = 9;
/// How long the same is asked for in a round.
const TIME: Duration = Duration::from_millis(1500);
const CONNECTIONS: usize = 32;

impl Bench {
    pub(super) async fn warm(&self, nginx: &Program, report: &mut Report) {
        let media = &self.files("warm", 1, SMALL).await[0];
        let service = programs::service(self.place(), nginx, "").await;
        let bare = programs::bare(SMALL).await;
        let body = Expect::Length(SMALL);
        let download = get(&format!("{API}/download/{}", media.place()));
        load::run(service.address, 1, &Requests::once(vec![download.clone()]), body).await;
        let candidates = [
            (&service, download, body),
            (nginx, get(&format!("/static/{}", media.name)), body),
            (&service, get(&format!("{API}/scan/{}", media.place())), CLEAN),
            (&bare, get("/verdict"), CLEAN),
            (nginx, get("/small"), Expect::Length(2)),
            (&bare, get("/body"), body),
        ];
        let mut rates = [const { Vec::new() }; 6];
        let mut slow = [const { Vec::new() }; 6];
        for round in 0..ROUNDS {
            for turn in 0..candidates.len() {
                // Nobody is always the first.
                let index = (turn + round) % candidates.len();
                let (program, request, expect) = &candidates[index];
                let requests = Requests::repeated(request.clone(), TIME);
                let outcome = load::run(program.address, CONNECTIONS, &requests, *expect).await;
                rates[index].push(outcome.rate());
                slow[index].push(outcome.percentile(99));
            }
        }
        let [download, of_nginx, scan, of_bare, smallest, bare_body] = &rates;
        let limit = ("nginx, static", &**of_nginx);
        let what = "download of 100 KiB from memory, 32 connections";
        report.beside(what, "a second", download, limit, Some(Goal::AtLeast(0.9)));
        let limit = ("a bare axum route", &**bare_body);
        report.beside(what, "a second", download, limit, None);
        let [ours, limit, ..] = &slow;
        report.beside("its p99", "ms", ours, ("nginx, static", limit), Some(Goal::AtMost(1.0)));
        let what = "known verdict, 32 connections";
        let limit = ("a bare axum route", &**of_bare);
        report.beside(what, "a second", scan, limit, Some(Goal::AtLeast(0.7)));
        report.beside(what, "a second", scan, ("nginx, 2 bytes", smallest), None);
    }
}

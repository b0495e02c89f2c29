//! One pass through the seen media.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use mcs_store::{ListPosition, RecordKey, RecordName};
use tokio::time::{Interval, sleep};
use tracing::{debug, info, warn};

use super::{
    end::{PauseCause, RescanEnd, RescanResult},
    source::RescanSource,
};
use crate::{
    incident::{
        rescan_store::RescanClaim,
        seen::{ListedMedia, SeenIndex, SeenPage},
    },
    metrics::Metrics,
    scan::{ContentState, engines::EngineState},
};

/// Maximum number of tries of media that fails while others do not.
const MAX_TRIES: u8 = 3;

/// First and longest pause before media is tried again that failed, or that another replica was scanning.
const SWEEP_PAUSE: Duration = Duration::from_secs(5);
const MAX_SWEEP_PAUSE: Duration = Duration::from_secs(60);

/// Maximum time that a homeserver can ask to wait.
const MAX_DELAY: Duration = Duration::from_secs(3600);

/// Parts of a pass that outlive it.
pub(super) struct PassParts<'a> {
    pub(super) source: &'a RescanSource,
    pub(super) seen: &'a SeenIndex,
    pub(super) metrics: &'a Arc<Metrics>,
    /// Limits the rate of downloads.
    pub(super) ticks: &'a mut Interval,
    /// Whether findings have consequences, which contents on a list of hashes need a job for.
    pub(super) has_incidents: bool,
}

/// One pass through the seen media.
pub(super) struct RescanPass<'a> {
    parts: PassParts<'a>,
    state: EngineState,
    counts: PassCounts,
    /// Contents with a verdict, by the name of their records.
    finished: HashSet<RecordName>,
    /// Media without a verdict on its content that is not tried again.
    given_up: HashSet<RecordKey>,
    /// Media that failed.
    tries: HashMap<RecordKey, u8>,
    pause: Option<(PauseCause, u32)>,
    left: u64,
}

/// The engines have changed. The pass begins again with the others.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Superseded;

/// Number of media by result.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct PassCounts(HashMap<RescanResult, u64>);

impl fmt::Display for PassCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: Vec<_> = self.0.iter().map(|(result, n)| (result.name(), n)).collect();
        counts.sort_unstable();
        let texts: Vec<_> = counts.iter().map(|(name, n)| format!("{name}={n}")).collect();
        if texts.is_empty() { f.write_str("none") } else { f.write_str(&texts.join(" ")) }
    }
}

/// What one sweep through the list has done.
#[derive(Default)]
struct SweepReport {
    scanned: u64,
    /// Media that is left for the next sweep.
    deferred: u64,
}

impl<'a> RescanPass<'a> {
    pub(super) fn new(parts: PassParts<'a>, state: EngineState) -> Self {
        Self {
            parts,
            state,
            counts: PassCounts::default(),
            finished: HashSet::new(),
            given_up: HashSet::new(),
            tries: HashMap::new(),
            pause: None,
            left: 0,
        }
    }

    /// Goes through the seen media until all contents have a verdict, or have been tried. The last sweep finds nothing to do:
    /// media whose scan by the earlier engines has ended meanwhile is not missed.
    pub(super) async fn run(&mut self) -> Result<PassCounts, Superseded> {
        self.left = self.count().await?;
        self.parts.metrics.rescans.set_running(Some(self.left));
        info!(media = self.left, "the engines have changed, scanning served media again");
        let mut pause = SWEEP_PAUSE;
        let mut is_first = true;
        loop {
            let SweepReport { scanned, deferred } = self.sweep(is_first).await?;
            if scanned == 0 && deferred == 0 {
                return Ok(self.counts.clone());
            }
            if deferred > 0 {
                sleep(pause).await;
                pause = (2 * pause).min(MAX_SWEEP_PAUSE);
            }
            is_first = false;
        }
    }

    /// Returns the number of seen media.
    async fn count(&mut self) -> Result<u64, Superseded> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.page(after).await?;
            count += page.media.len() as u64;
            if page.is_truncated {
                warn!(
                    media = count,
                    "too much media in the shared store, scanning only a part again"
                );
            }
            after = page.next;
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    async fn sweep(&mut self, is_first: bool) -> Result<SweepReport, Superseded> {
        let mut report = SweepReport::default();
        let mut after = None;
        loop {
            let page = self.page(after).await?;
            for listed in &page.media {
                self.examine(listed, is_first, &mut report).await?;
                if is_first {
                    self.left = self.left.saturating_sub(1);
                    self.parts.metrics.rescans.set_running(Some(self.left));
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(report);
            }
        }
    }

    /// Returns a part of the list, as soon as the store can be read.
    async fn page(&mut self, after: Option<ListPosition>) -> Result<SeenPage, Superseded> {
        loop {
            self.check_engines().await?;
            if let Some(page) = self.parts.seen.page(after).await {
                return Ok(page);
            }
            self.wait(PauseCause::Store, "the seen media cannot be listed", None).await;
        }
    }

    /// Scans media again, if its content needs that.
    async fn examine(
        &mut self,
        listed: &ListedMedia,
        is_first: bool,
        report: &mut SweepReport,
    ) -> Result<(), Superseded> {
        let media = &listed.media;
        if self.finished.contains(&listed.key.name) || self.given_up.contains(&listed.key) {
            // In the first sweep, other media with the same content.
            self.count_if(is_first, RescanResult::Known);
            return Ok(());
        }
        if !(self.parts.source.is_local)(media) {
            self.count_if(is_first, RescanResult::Elsewhere);
            return Ok(());
        }
        loop {
            if self.is_known(listed).await {
                self.count_if(is_first, RescanResult::Known);
                return Ok(());
            }
            let claim = self.parts.seen.store().claim(&listed.key, self.state.tag()).await;
            match &claim {
                RescanClaim::Alone => {}
                RescanClaim::Acquired(_) => {
                    // Another replica may have finished since.
                    if self.is_known(listed).await {
                        claim.release().await;
                        self.count_if(is_first, RescanResult::Known);
                        return Ok(());
                    }
                }
                RescanClaim::Held => {
                    report.deferred += 1;
                    return Ok(());
                }
                RescanClaim::Unavailable => {
                    self.wait(PauseCause::Store, "the shared store is not available", None).await;
                    self.check_engines().await?;
                    continue;
                }
            }
            self.parts.ticks.tick().await;
            self.check_engines().await?;
            let end = (self.parts.source.fetch)(media.clone()).await;
            claim.release().await;
            if !self.is_to_repeat(listed, end, report).await? {
                return Ok(());
            }
        }
    }

    /// Does what follows from the end of a scan. Returns whether the same media is to be tried again at once.
    async fn is_to_repeat(
        &mut self,
        listed: &ListedMedia,
        end: RescanEnd,
        report: &mut SweepReport,
    ) -> Result<bool, Superseded> {
        match end {
            RescanEnd::Verdict(result, content) => {
                self.resume();
                report.scanned += 1;
                if listed.media.content == Some(content) {
                    self.finished.insert(listed.key.name);
                    self.tries.remove(&listed.key);
                    self.count_if(true, result);
                } else {
                    self.give_up(listed.key, result);
                }
                Ok(false)
            }
            RescanEnd::Done(result) => {
                self.resume();
                report.scanned += 1;
                self.give_up(listed.key, result);
                Ok(false)
            }
            RescanEnd::Transient(cause) => {
                self.resume();
                if self.has_tries_left(listed, &cause, report) {
                    report.deferred += 1;
                }
                Ok(false)
            }
            RescanEnd::EnginesFail(detail) => {
                self.wait_for_engines(&detail).await?;
                // The engines worked before each try but the first: so an outage alone does not use up the tries.
                Ok(self.has_tries_left(listed, &detail, report))
            }
            RescanEnd::Pause { cause, detail, delay } => {
                self.wait(cause, &detail, delay).await;
                self.check_engines().await?;
                Ok(true)
            }
        }
    }

    async fn is_known(&self, listed: &ListedMedia) -> bool {
        let Some(content) = listed.media.content else { return false };
        match (self.parts.source.content)(content).await {
            ContentState::Unknown => false,
            ContentState::Known => true,
            // The incident needs the names of the media.
            ContentState::Blocked => {
                !self.parts.has_incidents || self.parts.seen.is_marked(&listed.media).await
            }
        }
    }

    /// Counts a try of media that failed. Gives it up after the last one.
    fn has_tries_left(
        &mut self,
        listed: &ListedMedia,
        cause: &str,
        report: &mut SweepReport,
    ) -> bool {
        let tries = self.tries.entry(listed.key).or_default();
        *tries += 1;
        debug!(mxc = listed.media.mxc, cause, "media could not be scanned again");
        if *tries < MAX_TRIES {
            return true;
        }
        report.scanned += 1;
        self.give_up(listed.key, RescanResult::NoVerdict);
        false
    }

    /// Ends the tries of media, but not of other media with the same content.
    fn give_up(&mut self, key: RecordKey, result: RescanResult) {
        self.given_up.insert(key);
        self.tries.remove(&key);
        self.count_if(true, result);
    }

    fn count_if(&mut self, is_counted: bool, result: RescanResult) {
        if is_counted {
            *self.counts.0.entry(result).or_default() += 1;
            self.parts.metrics.rescans.record(result.name());
        }
    }

    /// Waits while the engines cannot scan.
    async fn check_engines(&mut self) -> Result<(), Superseded> {
        loop {
            match (self.parts.source.engines)(()).await {
                Some(state) if state == self.state => return Ok(()),
                Some(_) => return Err(Superseded),
                None => {
                    let detail = "the canary has not passed, or a version is not known";
                    self.wait(PauseCause::Engines, detail, None).await;
                }
            }
        }
    }

    /// Waits until the engines give verdicts, after they have failed.
    async fn wait_for_engines(&mut self, detail: &str) -> Result<(), Superseded> {
        loop {
            self.wait(PauseCause::Engines, detail, None).await;
            self.check_engines().await?;
            if (self.parts.source.engines_work)(()).await {
                self.resume();
                return Ok(());
            }
        }
    }

    /// Pauses. Only the first pause with a cause is logged.
    async fn wait(&mut self, cause: PauseCause, detail: &str, delay: Option<Duration>) {
        let pauses = match self.pause {
            Some((current, pauses)) if current == cause => pauses,
            _ => {
                if cause == PauseCause::Busy {
                    debug!(detail, "rescan waits for clients");
                } else {
                    warn!(cause = cause.name(), detail, "rescan paused, trying again");
                }
                0
            }
        };
        self.pause = Some((cause, pauses.saturating_add(1)));
        self.parts.metrics.rescans.record_pause(cause.name());
        let asked = delay.unwrap_or_default().min(MAX_DELAY);
        sleep(cause.delay(pauses).max(asked)).await;
    }

    fn resume(&mut self) {
        if let Some((cause, _)) = self.pause.take()
            && cause != PauseCause::Busy
        {
            info!(cause = cause.name(), "rescan continues");
        }
    }
}

//! The servers of one engine: whom to ask next, who is left alone for a while because nobody answered
//! there, and what versions they told. Knows no protocol.

use std::{
    fmt, io,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::EngineFailure;
use crate::chain::Chain;

/// How long a connection may take to stand.
const CONNECT_TIME_LIMIT: Duration = Duration::from_secs(5);

/// How long a server is not asked after it was found dead: doubled each time, up to the second one.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// How many servers a media is given to that broke off over it: a media that kills one would kill them all.
const MAX_BROKEN_OFF: usize = 2;

/// How long a server may take to tell its version.
const VERSION_TIME_LIMIT: Duration = Duration::from_secs(5);

/// A longer version is cut.
const MAX_VERSION: usize = 200;

/// All servers of an engine.
#[derive(Debug)]
pub(super) struct Servers<E> {
    all: Vec<Server<E>>,
    turn: AtomicUsize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Server<E> {
    pub(super) endpoint: E,
    engine: &'static str,
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    /// In a row.
    failures: u32,
    rests_until: Option<Instant>,
    version: Option<Arc<str>>,
}

impl<E: fmt::Display> Servers<E> {
    pub(super) fn new(engine: &'static str, endpoints: impl IntoIterator<Item = E>) -> Self {
        let server = |endpoint| Server { endpoint, engine, state: Mutex::default() };
        Self { all: endpoints.into_iter().map(server).collect(), turn: AtomicUsize::new(0) }
    }

    /// Asks one server after the other, each at most once and all within `time_limit`, until one has
    /// been reached.
    pub(super) async fn ask<'s, T, F>(
        &'s self,
        time_limit: Duration,
        exchange: impl Fn(&'s Server<E>) -> F,
    ) -> Result<T, EngineFailure>
    where
        F: Future<Output = Result<T, EngineFailure>>,
    {
        let end = Instant::now() + time_limit;
        let mut broken_off = 0;
        let mut last = EngineFailure::Unreachable(io::ErrorKind::NotFound.into());
        for server in self.candidates() {
            let answered = timeout_at(end, exchange(server)).await;
            last = match answered.unwrap_or(Err(EngineFailure::TimedOut)) {
                Ok(answer) => {
                    server.is_well();
                    return Ok(answer);
                }
                Err(failure @ EngineFailure::Unreachable(_)) => {
                    server.rests(&failure);
                    failure
                }
                Err(failure @ EngineFailure::CutShort(_)) => {
                    broken_off += 1;
                    if broken_off == MAX_BROKEN_OFF {
                        return Err(failure);
                    }
                    failure
                }
                Err(failure) => {
                    if matches!(failure, EngineFailure::TimedOut) {
                        server.rests(&failure);
                    }
                    return Err(failure);
                }
            };
        }
        Err(last)
    }

    /// Those that do not rest, beginning with another each time; if all rest, the one that has rested
    /// most.
    fn candidates(&self) -> Vec<&Server<E>> {
        let now = Instant::now();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len().max(1);
        let (before, after) = self.all.split_at(turn);
        let rests_until = |server: &&Server<E>| server.state().rests_until;
        let well: Vec<_> = after
            .iter()
            .chain(before)
            .filter(|server| rests_until(server).is_none_or(|end| end <= now))
            .collect();
        if well.is_empty() {
            self.all.iter().min_by_key(rests_until).into_iter().collect()
        } else {
            well
        }
    }

    /// Asks all servers for their versions. One that does not answer keeps the one that it told last.
    pub(super) async fn read_versions<'s, F>(&'s self, exchange: impl Fn(&'s Server<E>) -> F)
    where
        F: Future<Output = Result<Arc<str>, EngineFailure>>,
    {
        let each = self.all.iter().map(|server| (server, exchange(server)));
        let each = each.map(|(server, exchange)| async move {
            let told = timeout(VERSION_TIME_LIMIT, exchange).await;
            match told.unwrap_or(Err(EngineFailure::TimedOut)) {
                Ok(version) => {
                    server.is_well();
                    server.told_version(&version);
                }
                Err(failure) => server.rests(&failure),
            }
        });
        futures_util::future::join_all(each).await;
    }

    /// The versions in use, each once; none where no server has told one yet. What those told that are
    /// not there at the moment counts: what they called clean is no less so.
    pub(super) fn versions(&self) -> Option<String> {
        let mut versions: Vec<_> =
            self.all.iter().filter_map(|server| server.state().version.clone()).collect();
        versions.sort_unstable();
        versions.dedup();
        (!versions.is_empty()).then(|| versions.join(", "))
    }
}

impl<E: fmt::Display> Server<E> {
    fn state(&self) -> MutexGuard<'_, State> {
        // Whole at every point where a panic could strike.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_well(&self) {
        let mut state = self.state();
        if state.failures > 0 {
            info!(engine = self.engine, server = %self.endpoint, "answers again");
            state.failures = 0;
        }
        state.rests_until = None;
    }

    fn rests(&self, failure: &EngineFailure) {
        let mut state = self.state();
        if state.failures == 0 {
            let (server, cause) = (&self.endpoint, Chain(failure));
            warn!(engine = self.engine, %server, %cause, "does not answer, and is left alone for a while");
        }
        let rest = REST.saturating_mul(1 << state.failures.min(10)).min(LONGEST_REST);
        state.failures = state.failures.saturating_add(1);
        state.rests_until = Some(Instant::now() + rest);
    }

    /// Remembers what it told of its version.
    pub(super) fn told_version(&self, version: &str) {
        let version = version
            .char_indices()
            .nth(MAX_VERSION)
            .map_or(version, |(end, _)| version.get(..end).unwrap_or_default());
        let mut state = self.state();
        if state.version.as_deref() != Some(version) {
            info!(engine = self.engine, server = %self.endpoint, version, "tells its version");
            state.version = Some(version.into());
        }
    }
}

/// A connection, or why there is none.
pub(super) async fn connected<T>(
    connecting: impl Future<Output = io::Result<T>>,
) -> Result<T, EngineFailure> {
    let connected = timeout(CONNECT_TIME_LIMIT, connecting).await;
    connected
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
        .map_err(EngineFailure::Unreachable)
}

/// Sends and listens at the same time. Gives the answer, and whether all had been sent when it was there.
pub(super) async fn said_and_sent<T>(
    sending: impl Future<Output = Result<(), EngineFailure>>,
    answer: impl Future<Output = Result<T, EngineFailure>>,
) -> Result<(T, bool), EngineFailure> {
    let (mut sending, mut answer) = (pin!(sending), pin!(answer));
    let mut sent = None;
    loop {
        tokio::select! {
            biased;
            ended = &mut sending, if sent.is_none() => sent = Some(match ended {
                Ok(()) => true,
                Err(failure @ EngineFailure::Media(_)) => return Err(failure),
                // The other side closes when it has had enough, and has mostly said why.
                Err(_) => false,
            }),
            answer = &mut answer => return Ok((answer?, sent == Some(true))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> EngineFailure {
        EngineFailure::Unreachable(io::ErrorKind::ConnectionRefused.into())
    }

    fn cut_short() -> EngineFailure {
        EngineFailure::CutShort(None)
    }

    const LIMIT: Duration = Duration::from_secs(60);

    /// Asks; gives the answer and who was asked for it.
    async fn asked(
        servers: &Servers<&'static str>,
        answer: impl Fn(&str) -> Result<(), EngineFailure>,
    ) -> (Result<(), EngineFailure>, Vec<&'static str>) {
        let asked = Mutex::new(Vec::new());
        let answer = servers
            .ask(LIMIT, |server| {
                asked.lock().unwrap().push(server.endpoint);
                std::future::ready(answer(server.endpoint))
            })
            .await;
        (answer, asked.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn one_dead_server_of_two_is_passed_by_and_found_again_when_it_is_back() {
        let servers = Servers::new("test", ["dead", "well"]);
        let dead = |name: &str| if name == "dead" { Err(unreachable()) } else { Ok(()) };
        let (answer, first) = asked(&servers, dead).await;
        assert!(answer.is_ok());
        assert_eq!(first, ["dead", "well"]);
        for _ in 0..4 {
            let (answer, then) = asked(&servers, dead).await;
            assert!(answer.is_ok());
            assert_eq!(then, ["well"], "the dead one rests");
        }
        tokio::time::advance(REST).await;
        let mut again = Vec::new();
        for _ in 0..2 {
            again.extend(asked(&servers, |_| Ok(())).await.1);
        }
        again.sort_unstable();
        assert_eq!(again, ["dead", "well"], "they take turns");
    }

    #[tokio::test(start_paused = true)]
    async fn rests_grow_and_end() {
        let servers = Servers::new("test", ["dead", "well"]);
        let dead = |name: &str| if name == "dead" { Err(unreachable()) } else { Ok(()) };
        let mut tries = 0;
        for _ in 0..120 {
            let (answer, who) = asked(&servers, dead).await;
            assert!(answer.is_ok());
            tries += who.iter().filter(|name| **name == "dead").count();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // After 0, 1, 3, 7, 15, 31 s and then every 30 s.
        assert!((6..=10).contains(&tries), "{tries}");
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_dead_one_is_tried_a_scan() {
        let servers = Servers::new("test", ["one", "two"]);
        let (answer, first) = asked(&servers, |_| Err(unreachable())).await;
        assert!(matches!(answer, Err(EngineFailure::Unreachable(_))));
        assert_eq!(first.len(), 2);
        let (_, then) = asked(&servers, |_| Err(unreachable())).await;
        assert_eq!(then.len(), 1);
        assert!(asked(&servers, |_| Ok(())).await.0.is_ok(), "and is back at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_media_that_kills_servers_kills_two_at_the_most() {
        let servers = Servers::new("test", ["one", "two", "three"]);
        let (answer, who) = asked(&servers, |_| Err(cut_short())).await;
        assert!(matches!(answer, Err(EngineFailure::CutShort(_))));
        assert_eq!(who.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_said_is_not_asked_of_another() {
        let servers = Servers::new("test", ["one", "two"]);
        let (answer, who) = asked(&servers, |_| Err(EngineFailure::Said("no".into()))).await;
        assert!(matches!(answer, Err(EngineFailure::Said(_))));
        assert_eq!(who.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_takes_the_time_limit_and_no_longer() {
        let servers = Servers::new("test", ["stuck", "well"]);
        let stuck = |server: &Server<&'static str>| {
            let name = server.endpoint;
            async move {
                if name == "stuck" {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        };
        let begun = Instant::now();
        let answer = servers.ask(LIMIT, stuck).await;
        assert!(matches!(answer, Err(EngineFailure::TimedOut)));
        assert_eq!(begun.elapsed(), LIMIT);
        // At the next turn of the stuck one it is left alone.
        for _ in 0..2 {
            assert!(servers.ask(Duration::from_millis(1), stuck).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn versions_are_those_that_were_told_last_each_once() {
        let servers = Servers::new("test", ["one", "two", "three"]);
        assert_eq!(servers.versions(), None);
        servers.read_versions(|_| std::future::ready(Err(unreachable()))).await;
        assert_eq!(servers.versions(), None);
        let tell = |server: &Server<&'static str>| {
            let name = server.endpoint;
            async move {
                match name {
                    "one" => Ok("2".into()),
                    "two" => std::future::pending().await,
                    _ => Ok("1".into()),
                }
            }
        };
        servers.read_versions(tell).await;
        assert_eq!(servers.versions().unwrap(), "1, 2");
        servers.read_versions(|_| std::future::ready(Ok("2".into()))).await;
        assert_eq!(servers.versions().unwrap(), "2");
        servers.read_versions(|_| std::future::ready(Err(unreachable()))).await;
        assert_eq!(servers.versions().unwrap(), "2", "silence is no other version");
        servers.read_versions(|_| std::future::ready(Ok("x".repeat(10_000).into()))).await;
        assert_eq!(servers.versions().unwrap().len(), MAX_VERSION);
    }
}

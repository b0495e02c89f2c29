//! The servers of one remote engine: selection, backoff after failures, and versions. Independent of the protocol.

use std::{
    fmt,
    future::ready,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::{
    engine_server::EngineServer,
    error::EngineFailure,
    version_changes::{MAX_VERSIONS, VersionChanges},
};
use crate::chain::Chain;

/// Time limit of connection setup.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Backoff after the first failure of a server. It doubles with each further failure, up to [`MAX_BACKOFF`].
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Maximum number of servers that may lose the connection over one file, so that a file that crashes servers does not
/// crash all of them.
const MAX_LOST_CONNECTIONS: usize = 2;

/// Time limit for reading the version of one server.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum length of a version, characters. Longer versions are truncated.
const MAX_VERSION: usize = 200;

/// The servers of one engine.
#[derive(Debug)]
pub(super) struct Pool<E> {
    members: Vec<PoolMember<E>>,
    next: AtomicUsize,
}

/// One server.
#[derive(Debug)]
pub(super) struct PoolMember<E> {
    pub(super) endpoint: E,
    engine: &'static str,
    state: Mutex<MemberState>,
}

#[derive(Default, Debug)]
struct MemberState {
    /// Number of consecutive failures.
    failures: u32,
    down_until: Option<Instant>,
    /// Why the server is down, on one line.
    failure: Option<Arc<str>>,
    version: Option<Arc<str>>,
    version_changes: VersionChanges,
}

impl<E: fmt::Display> Pool<E> {
    pub(super) fn new(engine: &'static str, endpoints: impl IntoIterator<Item = E>) -> Self {
        let member = |endpoint| PoolMember { endpoint, engine, state: Mutex::default() };
        Self { members: endpoints.into_iter().map(member).collect(), next: AtomicUsize::new(0) }
    }

    /// Runs `exchange` with one server after another until one responds. Tries each server at most once, all within
    /// `time_limit`.
    ///
    /// # Errors
    /// The last failure. Only [`EngineFailure::Unreachable`], [`EngineFailure::Busy`] and
    /// [`EngineFailure::ConnectionLost`] lead to another server, the latter up to [`MAX_LOST_CONNECTIONS`].
    pub(super) async fn request<'s, T, F>(
        &'s self,
        time_limit: Duration,
        exchange: impl Fn(&'s PoolMember<E>) -> F,
    ) -> Result<T, EngineFailure>
    where
        F: Future<Output = Result<T, EngineFailure>>,
    {
        let end = Instant::now() + time_limit;
        let mut lost_connections = 0;
        let mut last = EngineFailure::Unreachable(io::ErrorKind::NotFound.into());
        for member in self.candidates() {
            let result = timeout_at(end, exchange(member)).await;
            last = match result.unwrap_or(Err(EngineFailure::TimedOut)) {
                Ok(response) => {
                    member.mark_up();
                    return Ok(response);
                }
                Err(failure @ (EngineFailure::Unreachable(_) | EngineFailure::Busy)) => {
                    if shows_outage(&failure) {
                        member.mark_down(&failure);
                    }
                    failure
                }
                Err(failure @ EngineFailure::ConnectionLost(_)) => {
                    lost_connections += 1;
                    if lost_connections == MAX_LOST_CONNECTIONS {
                        return Err(failure);
                    }
                    failure
                }
                Err(failure) => {
                    if matches!(failure, EngineFailure::TimedOut) {
                        member.mark_down(&failure);
                    }
                    return Err(failure);
                }
            };
        }
        Err(last)
    }

    /// Returns the servers that are up, starting with a different one each time. If all are down, returns the one whose
    /// backoff ends first.
    fn candidates(&self) -> Vec<&PoolMember<E>> {
        let now = Instant::now();
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.members.len().max(1);
        let (before, after) = self.members.split_at(next);
        let down_until = |member: &&PoolMember<E>| member.state().down_until;
        let up: Vec<_> = after
            .iter()
            .chain(before)
            .filter(|member| down_until(member).is_none_or(|end| end <= now))
            .collect();
        if up.is_empty() {
            self.members.iter().min_by_key(down_until).into_iter().collect()
        } else {
            up
        }
    }

    /// Reads the versions of all servers. A server that does not respond keeps its last version.
    pub(super) async fn read_versions<'s, F>(&'s self, exchange: impl Fn(&'s PoolMember<E>) -> F)
    where
        F: Future<Output = Result<Arc<str>, EngineFailure>>,
    {
        self.read_and_apply(exchange, |_, version| ready(Some(version))).await;
    }

    /// Reads the state of all servers and applies the state. `apply` returns the version, or `None` to keep the last
    /// one. Only the exchange has a time limit and shows whether the server is available.
    pub(super) async fn read_and_apply<'s, T, F, A>(
        &'s self,
        exchange: impl Fn(&'s PoolMember<E>) -> F,
        apply: impl Fn(&'s PoolMember<E>, T) -> A,
    ) where
        F: Future<Output = Result<T, EngineFailure>>,
        A: Future<Output = Option<Arc<str>>>,
    {
        let apply = &apply;
        let exchanges = self.members.iter().map(|member| (member, exchange(member)));
        let exchanges = exchanges.map(|(member, exchange)| async move {
            let result = timeout(VERSION_TIMEOUT, exchange).await;
            match result.unwrap_or(Err(EngineFailure::TimedOut)) {
                Ok(state) => {
                    member.mark_up();
                    if let Some(version) = apply(member, state).await {
                        member.set_version(&version);
                    }
                }
                Err(failure) if shows_outage(&failure) => member.mark_down(&failure),
                Err(_) => {}
            }
        });
        futures_util::future::join_all(exchanges).await;
    }

    /// Returns the distinct versions of the servers; `None` before the first version is known. Includes servers that
    /// are down, since their outage does not invalidate earlier verdicts.
    pub(super) fn versions(&self) -> Option<String> {
        let mut versions: Vec<_> =
            self.members.iter().filter_map(|member| member.state().version.clone()).collect();
        versions.sort_unstable();
        versions.dedup();
        (!versions.is_empty()).then(|| versions.join(", "))
    }

    /// Returns the state of each server.
    pub(super) fn servers(&self) -> Vec<EngineServer> {
        let server = |member: &PoolMember<E>| {
            let state = member.state();
            EngineServer {
                address: member.endpoint.to_string(),
                version: state.version.clone(),
                failure: state.failure.clone(),
            }
        };
        self.members.iter().map(server).collect()
    }

    /// Returns whether the version of each server is known.
    pub(super) fn has_all_versions(&self) -> bool {
        self.members.iter().all(|member| member.state().version.is_some())
    }
}

impl<E: fmt::Display> PoolMember<E> {
    fn state(&self) -> MutexGuard<'_, MemberState> {
        self.state.lock()
    }

    fn mark_up(&self) {
        let mut state = self.state();
        if state.failures > 0 {
            info!(engine = self.engine, address = %self.endpoint, "engine available again");
            state.failures = 0;
        }
        state.down_until = None;
        state.failure = None;
    }

    fn mark_down(&self, failure: &EngineFailure) {
        let mut state = self.state();
        let backoff = BACKOFF.saturating_mul(1 << state.failures.min(10)).min(MAX_BACKOFF);
        if state.failures == 0 {
            warn!(
                engine = self.engine,
                address = %self.endpoint,
                retry_in = ?backoff,
                cause = %Chain(failure),
                "engine unavailable, backing off"
            );
        }
        state.failures = state.failures.saturating_add(1);
        state.down_until = Some(Instant::now() + backoff);
        state.failure = Some(Chain(failure).to_string().into());
    }

    /// Stores the version that the server reported.
    pub(super) fn set_version(&self, version: &str) {
        let version = version
            .char_indices()
            .nth(MAX_VERSION)
            .map_or(version, |(end, _)| version.get(..end).unwrap_or_default());
        let mut state = self.state();
        if state.version.as_deref() == Some(version) {
            return;
        }
        let is_first = state.version.replace(version.into()).is_none();
        let (engine, address) = (self.engine, &self.endpoint);
        if state.version_changes.record(Instant::now()) {
            warn!(
                engine,
                %address,
                version,
                "engine reports more than {MAX_VERSIONS} versions in a minute, so its clean verdicts are not reused"
            );
        } else if is_first {
            info!(engine, %address, version, "engine version");
        } else if !state.version_changes.is_excessive {
            info!(engine, %address, version, "engine version changed");
        }
    }
}

/// Waits for a connection within [`CONNECT_TIMEOUT`].
///
/// # Errors
/// [`EngineFailure::Unreachable`].
pub(super) async fn connect_with_timeout<T>(
    connect: impl Future<Output = io::Result<T>>,
) -> Result<T, EngineFailure> {
    within_connect_timeout(connect).await.map_err(EngineFailure::Unreachable)
}

/// Waits for a connection within [`CONNECT_TIMEOUT`].
pub(super) async fn within_connect_timeout<T>(
    connect: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let result = timeout(CONNECT_TIMEOUT, connect).await;
    result.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

/// Returns whether a failure shows that the server is unavailable. Exhausted descriptors of this service are not a
/// fault of the server, and a server with a full backlog runs and will accept connections again.
fn shows_outage(failure: &EngineFailure) -> bool {
    !failure.is_overload()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> EngineFailure {
        EngineFailure::Unreachable(io::ErrorKind::ConnectionRefused.into())
    }

    fn connection_lost() -> EngineFailure {
        EngineFailure::ConnectionLost(None)
    }

    const LIMIT: Duration = Duration::from_secs(60);

    /// Sends a request. Returns its result and the servers that were tried.
    async fn request(
        pool: &Pool<&'static str>,
        respond: impl Fn(&str) -> Result<(), EngineFailure>,
    ) -> (Result<(), EngineFailure>, Vec<&'static str>) {
        let tried = Mutex::new(Vec::new());
        let result = pool
            .request(LIMIT, |member| {
                tried.lock().push(member.endpoint);
                ready(respond(member.endpoint))
            })
            .await;
        (result, tried.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn skips_unreachable_server_until_backoff_ends() {
        let pool = Pool::new("test", ["down", "up"]);
        let respond = |name: &str| if name == "down" { Err(unreachable()) } else { Ok(()) };
        let (result, tried) = request(&pool, respond).await;
        assert!(result.is_ok());
        assert_eq!(tried, ["down", "up"]);
        for _ in 0..4 {
            let (result, tried) = request(&pool, respond).await;
            assert!(result.is_ok());
            assert_eq!(tried, ["up"], "the other server is in backoff");
        }
        tokio::time::advance(BACKOFF).await;
        let mut tried = Vec::new();
        for _ in 0..2 {
            tried.extend(request(&pool, |_| Ok(())).await.1);
        }
        tried.sort_unstable();
        assert_eq!(tried, ["down", "up"], "both servers are used in turn");
    }

    #[tokio::test(start_paused = true)]
    async fn neither_a_full_backlog_nor_a_lack_of_descriptors_marks_a_server_as_down() {
        let failures: [fn() -> EngineFailure; 2] = [
            || EngineFailure::Busy,
            || EngineFailure::Unreachable(io::Error::from_raw_os_error(nix::libc::EMFILE)),
        ];
        for failure in failures {
            let pool = Pool::new("test", ["busy", "other"]);
            pool.read_versions(|_| ready(Err(failure()))).await;
            let respond = |name: &str| if name == "busy" { Err(failure()) } else { Ok(()) };
            let mut tried = Vec::new();
            for _ in 0..4 {
                let (result, servers) = request(&pool, respond).await;
                assert!(result.is_ok());
                tried.extend(servers);
            }
            let expected = ["busy", "other", "other", "busy", "other", "other"];
            assert_eq!(tried, expected, "the busy server is in no backoff");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_up_to_maximum() {
        let pool = Pool::new("test", ["down", "up"]);
        let respond = |name: &str| if name == "down" { Err(unreachable()) } else { Ok(()) };
        let mut attempts = 0;
        for _ in 0..120 {
            let (result, tried) = request(&pool, respond).await;
            assert!(result.is_ok());
            attempts += tried.iter().filter(|name| **name == "down").count();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // After 0, 1, 3, 7, 15, 31 s and then every 30 s.
        assert!((6..=10).contains(&attempts), "{attempts}");
    }

    #[tokio::test(start_paused = true)]
    async fn tries_one_server_per_request_when_all_are_down() {
        let pool = Pool::new("test", ["one", "two"]);
        let (result, tried) = request(&pool, |_| Err(unreachable())).await;
        assert!(matches!(result, Err(EngineFailure::Unreachable(_))));
        assert_eq!(tried.len(), 2);
        let (_, tried) = request(&pool, |_| Err(unreachable())).await;
        assert_eq!(tried.len(), 1);
        assert!(request(&pool, |_| Ok(())).await.0.is_ok(), "a recovered server is used at once");
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_after_two_lost_connections() {
        let pool = Pool::new("test", ["one", "two", "three"]);
        let (result, tried) = request(&pool, |_| Err(connection_lost())).await;
        assert!(matches!(result, Err(EngineFailure::ConnectionLost(_))));
        assert_eq!(tried.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn reported_failure_is_not_retried_on_another_server() {
        let pool = Pool::new("test", ["one", "two"]);
        let (result, tried) = request(&pool, |_| Err(EngineFailure::Reported("no".into()))).await;
        assert!(matches!(result, Err(EngineFailure::Reported(_))));
        assert_eq!(tried.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn unresponsive_server_fails_at_time_limit_and_backs_off() {
        let pool = Pool::new("test", ["stuck", "up"]);
        let respond = |member: &PoolMember<&'static str>| {
            let name = member.endpoint;
            async move {
                if name == "stuck" {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        };
        let start = Instant::now();
        let result = pool.request(LIMIT, respond).await;
        assert!(matches!(result, Err(EngineFailure::TimedOut)));
        assert_eq!(start.elapsed(), LIMIT);
        for _ in 0..2 {
            let result = pool.request(Duration::from_millis(1), respond).await;
            assert!(result.is_ok(), "the stuck server is in backoff");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn versions_are_distinct_and_outlast_outages() {
        let pool = Pool::new("test", ["one", "two", "three"]);
        assert_eq!(pool.versions(), None);
        pool.read_versions(|_| ready(Err(unreachable()))).await;
        assert_eq!(pool.versions(), None);
        let respond = |member: &PoolMember<&'static str>| {
            let name = member.endpoint;
            async move {
                match name {
                    "one" => Ok("2".into()),
                    "two" => std::future::pending().await,
                    _ => Ok("1".into()),
                }
            }
        };
        pool.read_versions(respond).await;
        assert_eq!(pool.versions().unwrap(), "1, 2");
        pool.read_versions(|_| ready(Ok("2".into()))).await;
        assert_eq!(pool.versions().unwrap(), "2");
        pool.read_versions(|_| ready(Err(unreachable()))).await;
        assert_eq!(pool.versions().unwrap(), "2", "an outage does not change the version");
        pool.read_versions(|_| ready(Ok("x".repeat(10_000).into()))).await;
        assert_eq!(pool.versions().unwrap().len(), MAX_VERSION);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_application_of_a_state_is_no_outage() {
        let pool = Pool::new("test", ["one"]);
        pool.read_versions(|_| ready(Ok("1".into()))).await;
        let refuse = |_: &PoolMember<&'static str>, ()| async {
            tokio::time::sleep(2 * VERSION_TIMEOUT).await;
            None
        };
        pool.read_and_apply(|_| ready(Ok(())), refuse).await;
        assert_eq!(pool.members[0].state().down_until, None);
        assert_eq!(pool.versions().unwrap(), "1");
    }
}

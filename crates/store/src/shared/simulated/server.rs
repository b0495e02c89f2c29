//! State of a simulated server, and what a test controls.

use std::{
    collections::HashSet,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use redis::Value;
use tokio::time::Instant;

use crate::state::Now;

use super::{
    super::{random::NodeRandom, watched::WatchedValue},
    commands::{CommandContext, error, needs_memory},
    keyspace::{KeyspaceSnapshot, SimulatedValue},
};

/// Time of the server at its start, in seconds since the epoch.
const START: u64 = 1_700_000_000;

/// Server in the process. Clones refer to the same server.
#[derive(Clone)]
pub struct SimulatedServer(Arc<ServerInner>);

/// One replica that uses a [`SimulatedServer`].
#[derive(Clone)]
pub struct SimulatedNode {
    /// Number of the replica, by which the server distinguishes partitions.
    pub client: u32,
    /// Start of all random numbers of the replica, except those of seals. The first one is the name of the replica, so
    /// replicas need different seeds.
    pub seed: u64,
    /// Time limit of one call of the server.
    pub timeout: Duration,
    /// Returns the current time of the replica in seconds since the Unix epoch.
    pub now: Now,
}

struct ServerInner {
    state: Mutex<ServerState>,
    random: NodeRandom,
    created: Instant,
    is_frozen: WatchedValue<bool>,
}

#[derive(Default)]
struct ServerState {
    keys: KeyspaceSnapshot,
    clock_offset: i64,
    min_delay: Duration,
    max_delay: Duration,
    /// Calls of a thousand that fail.
    failures: u32,
    partitioned: HashSet<u32>,
    write_error: Option<String>,
    is_down: bool,
    /// Number of stops.
    stops: u64,
    calls: u64,
    trace: u64,
}

/// How a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallFault {
    None,
    /// The connection ends before the command is executed.
    BeforeExecution,
    /// The connection ends before the reply is received.
    AfterExecution,
    /// Neither the command nor the end of the connection is received.
    NoReply,
}

/// What happens to a call.
pub(super) struct CallPlan {
    pub(super) request_delay: Duration,
    pub(super) reply_delay: Duration,
    pub(super) fault: CallFault,
}

impl SimulatedServer {
    /// Creates an empty server. `seed`: start of the random numbers that decide about delays and failures. The clock
    /// starts at 1 700 000 000 s and runs with the time of Tokio.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(ServerInner {
            state: Mutex::default(),
            random: NodeRandom::from_seed(seed),
            created: Instant::now(),
            is_frozen: WatchedValue::new(false),
        }))
    }

    /// Returns the time of the server in milliseconds since the epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.0.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        let offset = self.0.state.lock().clock_offset;
        (START * 1000).saturating_add(elapsed).saturating_add_signed(offset)
    }

    /// Sets by how many milliseconds the clock of the server is ahead.
    pub fn set_clock_offset(&self, milliseconds: i64) {
        self.0.state.lock().clock_offset = milliseconds;
    }

    /// Delays each request and each reply by a random time in this range.
    pub fn set_delay(&self, min: Duration, max: Duration) {
        let mut state = self.0.state.lock();
        (state.min_delay, state.max_delay) = (min, max);
    }

    /// Lets this number of a thousand calls fail: a third each before their execution, after it, and without a reply.
    pub fn set_failures(&self, per_thousand: u32) {
        self.0.state.lock().failures = per_thousand;
    }

    /// Drops all packets of a replica.
    pub fn set_partitioned(&self, client: u32, is_partitioned: bool) {
        let partitioned = &mut self.0.state.lock().partitioned;
        if is_partitioned {
            partitioned.insert(client);
        } else {
            partitioned.remove(&client);
        }
    }

    /// Stops the execution of commands, as SIGSTOP does. They are executed when it continues.
    pub fn set_frozen(&self, is_frozen: bool) {
        self.0.is_frozen.update(|state| {
            *state = is_frozen;
            true
        });
    }

    /// Ends all connections, and refuses new ones until the server is up again. Keys remain.
    pub fn set_down(&self, is_down: bool) {
        let mut state = self.0.state.lock();
        state.stops += u64::from(is_down && !state.is_down);
        state.is_down = is_down;
    }

    /// Replies to commands that need memory with this error, for example `OOM command not allowed`.
    pub fn set_write_error(&self, error: Option<&str>) {
        self.0.state.lock().write_error = error.map(str::to_owned);
    }

    /// Removes all keys.
    pub fn flush_all(&self) {
        self.0.state.lock().keys = KeyspaceSnapshot::default();
    }

    /// Returns all keys, sorted.
    #[must_use]
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let now = self.now_ms();
        let mut state = self.0.state.lock();
        state.keys.expire(now);
        state.keys.0.keys().cloned().collect()
    }

    /// Removes a key. Returns whether it existed.
    #[must_use]
    pub fn remove(&self, key: &[u8]) -> bool {
        self.0.state.lock().keys.0.remove(key).is_some()
    }

    /// Returns the string at a key.
    #[must_use]
    pub fn raw(&self, key: &[u8]) -> Option<Vec<u8>> {
        let now = self.now_ms();
        let mut state = self.0.state.lock();
        state.keys.expire(now);
        state.keys.text(key).cloned()
    }

    /// Sets a string, which does not expire.
    pub fn set_raw(&self, key: &[u8], value: &[u8]) {
        self.0.state.lock().keys.set(key, SimulatedValue::Text(value.to_owned()), None);
    }

    /// Adds a member with a score to a sorted set.
    pub fn add_member(&self, key: &[u8], score: u64, member: &[u8]) {
        let score = score.to_string();
        let command: [&[u8]; 4] = [b"ZADD", key, score.as_bytes(), member];
        self.execute(&[command.map(<[u8]>::to_vec).to_vec()]);
    }

    /// Appends an entry to a stream of events.
    pub fn append_event(&self, key: &[u8], sealed: &[u8]) {
        let entry: [&[u8]; 8] = [b"XADD", key, b"MAXLEN", b"~", b"10000", b"*", b"e", sealed];
        let commands = [entry.map(<[u8]>::to_vec).to_vec()];
        self.execute(&commands);
    }

    /// Returns all keys with their values.
    #[must_use]
    pub fn snapshot(&self) -> KeyspaceSnapshot {
        self.0.state.lock().keys.clone()
    }

    /// Restores all keys, as from a backup.
    pub fn restore(&self, snapshot: &KeyspaceSnapshot) {
        self.0.state.lock().keys.clone_from(snapshot);
    }

    /// Returns the number of calls that were received, including polls.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.state.lock().calls
    }

    /// Returns a digest of the times, names and keys of all commands so far, by which two runs are compared. Sealed values are
    /// not part of it: their nonces differ.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.0.state.lock().trace
    }

    /// Decides what happens to the next call of a replica.
    pub(super) fn plan_call(&self, client: u32) -> CallPlan {
        let state = self.0.state.lock();
        let range = state.max_delay.saturating_sub(state.min_delay);
        let range = u64::try_from(range.as_micros()).unwrap_or(0);
        let random = &self.0.random;
        let delay = || state.min_delay + Duration::from_micros(random.below(range));
        let (request_delay, reply_delay) = (delay(), delay());
        let fault = if state.partitioned.contains(&client) {
            CallFault::NoReply
        } else if state.failures > 0 && random.below(1000) < u64::from(state.failures) {
            match random.below(3) {
                0 => CallFault::BeforeExecution,
                1 => CallFault::AfterExecution,
                _ => CallFault::NoReply,
            }
        } else {
            CallFault::None
        };
        CallPlan { request_delay, reply_delay, fault }
    }

    /// Returns the number of stops before the current run, or `None` while the server is down.
    pub(super) fn running_start(&self) -> Option<u64> {
        let state = self.0.state.lock();
        (!state.is_down).then_some(state.stops)
    }

    pub(super) async fn wait_until_running(&self) {
        loop {
            let changed = self.0.is_frozen.changed();
            if !*self.0.is_frozen.lock() {
                return;
            }
            changed.await;
        }
    }

    /// Executes the commands of a call.
    pub(super) fn execute(&self, commands: &[Vec<Vec<u8>>]) -> Vec<Value> {
        let now = self.now_ms();
        let mut state = self.0.state.lock();
        let state = &mut *state;
        state.calls += 1;
        for command in commands {
            let mut hasher = DefaultHasher::new();
            (state.trace, now, command.get(..2), command.len()).hash(&mut hasher);
            state.trace = hasher.finish();
        }
        let mut context = CommandContext { keys: &mut state.keys, now };
        let replies = commands.iter().map(|command| {
            let arguments: Vec<_> = command.iter().map(|argument| &**argument).collect();
            let name = arguments.first().copied().unwrap_or_default();
            match &state.write_error {
                Some(text) if needs_memory(name) => error(text),
                _ => context.execute(&arguments),
            }
        });
        replies.collect()
    }
}

impl fmt::Debug for SimulatedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedServer(..)")
    }
}

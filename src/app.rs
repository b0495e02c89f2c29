//! Builds everything once, by hand, in the order in which it is needed; binds, serves, drains. What
//! comes from outside (configuration, shutdown) is an argument.

mod reload;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mcs_sandbox::{Candidate, Cgroup, Layer, Mode, Policy, Sandbox};
use prometheus_client::registry::Registry;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tracing::{info, warn};

use crate::{
    audit::{Audit, AuditError},
    chain::Chain,
    config::Config,
    http::{
        self, AppState, Listen, Live, RequestSettings,
        listener::{BindError, Listener},
    },
    identity::by,
    keys::{KeyError, KeyNotice, Keyring, RequestKey},
    media::{Authoriser, Homeservers, SetupError, spool::Spool},
    metrics::Metrics,
    operations::{self, Gauges, Health},
    scan::{
        self, Scanner,
        canary::{Canary, CanaryState},
        engines::{self, Engines, Evaluator, Network},
        filetype::{Detector, LoadError},
        local::LocalScanner,
        run_directory::{self, RunDirectory},
        script::Turns,
    },
    service_manager::{PassedSocket, ServiceManager},
    supervision::{self, Supervised},
};

pub use reload::{Read, Reload};
use reload::{Reloader, Watch};

/// How long running jobs and requests may take after the first signal to stop.
pub const GRACE: Duration = Duration::from_secs(30);

/// How long the sandbox's helpers may take to clean up once their jobs are given up.
const CLEANING: Duration = Duration::from_secs(3);

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The request key.
    #[error("the request key cannot be used")]
    Key(#[from] KeyError),
    /// TLS, the proxy, a base URL.
    #[error("[download] cannot be used")]
    Download(#[from] SetupError),
    /// The file type database.
    #[error("the file types cannot be loaded")]
    FileTypes(#[from] LoadError),
    /// Engines that are asked over a socket.
    #[error("the engines cannot be used")]
    Engines(#[from] engines::SetupError),
    /// This program's file, or the prepared rules'.
    #[error("the rules cannot be made ready for programs in the sandbox")]
    Rules(#[from] RulesError),
    /// The sandbox does not hold here.
    #[error("the sandbox cannot be used")]
    Sandbox(#[from] mcs_sandbox::Error),
    /// `scan.temp_directory`.
    #[error("{} (scan.temp_directory) cannot be used{}", path.display(), by(source))]
    #[expect(missing_docs, reason = "the message says it")]
    TempDirectory { path: PathBuf, source: io::Error },
    /// The address.
    #[error("cannot listen")]
    Listen(#[from] BindError),
    /// `[operations]`
    #[error("the operator's listener cannot be opened ([operations])")]
    Operations(#[source] BindError),
    /// `audit.path`
    #[error("audit.path cannot be used")]
    Audit(#[from] AuditError),
    /// The socket that was passed.
    #[error("cannot listen on the socket that the service manager passed")]
    PassedSocket(#[source] io::Error),
}

/// Where scripts run, tried out.
#[derive(Clone, Debug)]
pub struct Grounds {
    /// Ready to prepare jobs.
    pub sandbox: Sandbox,
    /// What looks at rules there, where they are asked.
    pub evaluator: Option<Arc<Evaluator>>,
    /// This process's own directory; removed with it.
    pub directory: Arc<RunDirectory>,
}

/// Why there is no evaluator.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RulesError(#[from] io::Error);

impl Grounds {
    /// For the running service: sweeps what killed servers left, makes this one's directory, and tries the
    /// sandbox in it.
    pub async fn of_service(config: &Config) -> Result<Self, StartError> {
        Self::prepare(config, config.sandbox.clone(), None).await
    }

    /// The same for a command, with another program to be run than those of the configuration.
    pub async fn of_command(config: &Config, program: Option<&Path>) -> Result<Self, StartError> {
        let mut policy = config.sandbox.clone();
        // A command may be started beside the service, or before it by the same unit.
        policy.cgroup = Cgroup::Off("only the running service enters the one delegated to it");
        if let Mode::Strict(required) = &mut policy.mode {
            required.retain(|layer| *layer != Layer::Cgroup);
        }
        Self::prepare(config, policy, program).await
    }

    async fn prepare(
        config: &Config,
        mut policy: Policy,
        program: Option<&Path>,
    ) -> Result<Self, StartError> {
        let temp_directory = config.scan.temp_directory.clone();
        let unusable = |source| StartError::TempDirectory { path: temp_directory.clone(), source };
        for (path, removed) in run_directory::sweep(&temp_directory).map_err(unusable)? {
            match removed {
                Ok(()) => info!(path = %path.display(), "removed what a killed server left"),
                Err(error) => warn!(
                    path = %path.display(),
                    error = %Chain(&error),
                    "what a killed server left could not be removed"
                ),
            }
        }
        let passable = config.sandbox.user.is_some();
        let directory = RunDirectory::make(&temp_directory, passable).map_err(unusable)?;
        let evaluator = evaluator(config, None)?;
        show_programs(&mut policy, config, evaluator.as_deref());
        policy.paths.read_only.extend(program.map(Path::to_owned));
        let sandbox = Candidate::new(policy)?.settle(directory.path()).await?;
        Ok(Self { sandbox, evaluator, directory: Arc::new(directory) })
    }

    /// The same directory, with a sandbox by another configuration, tried out in it too.
    async fn revised(&self, config: &Config) -> Result<Self, StartError> {
        let mut policy = config.sandbox.clone();
        let evaluator = evaluator(config, self.evaluator.as_deref())?;
        show_programs(&mut policy, config, evaluator.as_deref());
        let sandbox = self.sandbox.revised(policy)?.settle(self.directory.path()).await?;
        Ok(Self { sandbox, evaluator, directory: Arc::clone(&self.directory) })
    }

    /// The engines of this configuration, with programs run here.
    fn engines(
        &self,
        config: &Config,
        turns: &Turns,
        network: &Arc<Network>,
    ) -> Result<Engines, engines::SetupError> {
        Engines::new(&config.scan, &self.sandbox, self.evaluator.as_ref(), turns, network)
    }

    /// The spool of this process.
    #[must_use]
    pub fn spool(&self, config: &Config) -> Spool {
        let (limit, max_size) = (config.scan.max_spool_size, config.download.max_size);
        Spool::new(self.directory.path().to_owned(), limit, max_size)
    }
}

/// The programs themselves, wherever they lie.
fn show_programs(policy: &mut Policy, config: &Config, evaluator: Option<&Evaluator>) {
    policy.paths.read_only.extend(evaluator.map(|it| it.program().to_owned()));
    policy.paths.read_only.extend(config.scan.script.clone());
    policy.paths.read_only.extend(config.scan.removal_command.iter().map(|(it, _)| it.clone()));
}

/// Made anew for each configuration; of this program as it was found first, since later its file may be gone.
fn evaluator(
    config: &Config,
    before: Option<&Evaluator>,
) -> Result<Option<Arc<Evaluator>>, RulesError> {
    let Some(rules) = config.scan.rules() else { return Ok(None) };
    let program = match before {
        Some(before) => before.program().to_owned(),
        None => std::env::current_exe()?,
    };
    Ok(Some(Arc::new(Evaluator::prepare(program, &rules.rules)?)))
}

/// The engines that are asked over a socket, with the versions of those that answer.
pub async fn network(config: &Config) -> Result<Arc<Network>, engines::SetupError> {
    let network = Network::new(&config.scan.engines)?;
    network.read_versions().await;
    Ok(Arc::new(network))
}

/// Scans local files with these settings, one program at a time.
pub fn local_scanner(
    config: &Config,
    grounds: &Grounds,
    detector: Arc<Detector>,
    network: &Arc<Network>,
) -> Result<LocalScanner, engines::SetupError> {
    Ok(LocalScanner {
        engines: grounds.engines(config, &Turns::new(1), network)?,
        settings: config.scan.clone(),
        sandbox: grounds.sandbox.clone(),
        spool: grounds.spool(config),
        detector,
        max_size: config.download.max_size,
    })
}

fn canary(
    config: &Config,
    grounds: &Grounds,
    detector: &Arc<Detector>,
    network: &Arc<Network>,
) -> Result<Option<Canary>, engines::SetupError> {
    let Some(settings) = config.scan.canary.clone() else { return Ok(None) };
    let scanner = local_scanner(config, grounds, Arc::clone(detector), network)?;
    Ok(Some(Canary::new(scanner, settings)))
}

/// Whom the service works under.
#[derive(Debug)]
pub struct Manager {
    /// Whom to tell how it is.
    pub told: ServiceManager,
    /// What it is to listen on in place of `[web]`'s address.
    pub socket: Option<PassedSocket>,
}

/// Serves until `shutdown` completes, then lets what runs end within [`GRACE`]. Whenever `reload` asks for it,
/// what can change is changed.
///
/// # Errors
/// [`StartError`]; once it listens, it serves.
pub async fn serve(
    config: Config,
    manager: Manager,
    reload: Reload,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let Manager { told: manager, socket } = manager;
    manager.status("Starting: the sandbox is being tried");
    let (key, notices) = RequestKey::load(&config.crypto)?;
    notices.iter().for_each(report);
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::new(&mut registry));
    let homeservers = Arc::new(Homeservers::new(&config.download, Arc::clone(&metrics))?);
    let network = network(&config).await?;
    // Side by side: each takes most of the time until the service answers.
    let detector = async { Detector::load().await.map_err(StartError::from) };
    let (grounds, detector) = tokio::try_join!(Grounds::of_service(&config), detector)?;
    let detector = Arc::new(detector);
    for name in unknown_types(&config, &detector) {
        warn!(name, "a MIME type in [scan] that is never detected: no file is called this");
    }
    describe(&grounds.sandbox, &config.sandbox.mode);
    let audit = config.audit.clone().map(|to| Audit::start(to, Arc::clone(&metrics)));
    let audit = audit.transpose()?;
    let first =
        if config.scan.canary.is_some() { CanaryState::Awaited } else { CanaryState::Passed };
    let (tell_canary, canary_says) = watch::channel(first);
    let canary = canary(&config, &grounds, &detector, &network)?;
    let lasting = Lasting {
        spool: grounds.spool(&config),
        turns: Turns::new(config.scan.max_scripts),
        detector,
        canary: canary_says.clone(),
        metrics: Arc::clone(&metrics),
        audit,
    };
    let (scanner, workers) =
        Scanner::start(lasting.parts(&config, &grounds, &homeservers, &network)?);
    let mut watch = Watch { state: tell_canary, task: None };
    watch.begin(canary, scanner.clone());
    let keys = Keyring::new(key, config.previous_key_ttl);
    let live = Live::new(lasting.state(&config, scanner.clone(), homeservers, keys));
    let routes = http::routes::Routes::new(live.clone());
    let places = config.web.max_connections;
    raise_descriptor_limit(places);
    let listener = listen(&config.web.listen, socket).await?;
    let mut reloader = Reloader {
        reload,
        running: config,
        live: live.clone(),
        grounds,
        lasting,
        canary: watch,
        manager: manager.clone(),
    };
    let stopping = watch::Sender::new(None);
    let gauges = Gauges {
        live: live.clone(),
        health: Health { canary: canary_says.clone(), stopping: stopping.subscribe() },
        max_connections: places,
    };
    // They end with this function.
    let mut companions = JoinSet::new();
    if let Some(settings) = reloader.running.operations.clone() {
        companions.spawn(operations(settings, registry, gauges).await?);
    }
    let supervised = Supervised {
        load: Box::new({
            let live = live.clone();
            move || live.now().scanner.load()
        }),
        canary: canary_says,
        stopping: stopping.subscribe(),
    };
    if manager.listens() {
        companions.spawn(supervision::tell(manager.clone(), supervised));
    }
    let told = async {
        shutdown.await;
        manager.stopping();
        info!(grace_seconds = GRACE.as_secs(), "stopping; what runs may end");
        stopping.send_replace(Some(Instant::now() + GRACE));
    };
    let mut stopped = stopping.subscribe();
    let grace_ends = async {
        if let Ok(end) = stopped.wait_for(Option::is_some).await.map(|end| *end) {
            tokio::time::sleep_until(end.unwrap_or_else(Instant::now)).await;
        }
    };
    tokio::select! {
        () = http::server::serve(listener, |client| routes.of(client), places, || live.now().limits, &metrics, told) => {}
        () = reloader.run(stopping.subscribe()) => {}
        () = grace_ends => warn!("the grace time is over: requests are cut off"),
    }
    let end = stopping.borrow().unwrap_or_else(Instant::now);
    drain(&scanner, workers, end).await;
    reloader.canary.stop().await;
    cleaned(&reloader.grounds.directory).await;
    if let Some(audit) = &reloader.lasting.audit {
        audit.flush(CLEANING).await;
    }
    info!("stopped");
    Ok(())
}

/// What is made once, whatever is configured later.
struct Lasting {
    spool: Spool,
    turns: Turns,
    detector: Arc<Detector>,
    canary: watch::Receiver<CanaryState>,
    metrics: Arc<Metrics>,
    audit: Option<Audit>,
}

impl Lasting {
    /// What scanners by this configuration are made of.
    fn parts(
        &self,
        config: &Config,
        grounds: &Grounds,
        homeservers: &Arc<Homeservers>,
        network: &Arc<Network>,
    ) -> Result<scan::Parts, engines::SetupError> {
        let (max_size, ttl) = (config.download.max_size, config.download.authorisation_ttl);
        Ok(scan::Parts {
            settings: config.scan.clone(),
            cache: config.result_cache.clone(),
            max_media_size: max_size,
            homeservers: Arc::clone(homeservers),
            authoriser: Arc::new(Authoriser::new(Arc::clone(homeservers), ttl)),
            sandbox: grounds.sandbox.clone(),
            engines: grounds.engines(config, &self.turns, network)?,
            spool: self.spool.with_bounds(config.scan.max_spool_size, max_size),
            detector: Arc::clone(&self.detector),
            canary: self.canary.clone(),
            metrics: Arc::clone(&self.metrics),
            audit: self.audit.clone(),
        })
    }

    /// What requests go by.
    fn state(
        &self,
        config: &Config,
        scanner: Scanner,
        homeservers: Arc<Homeservers>,
        keys: Keyring,
    ) -> AppState {
        AppState {
            scanner,
            homeservers,
            keys: Arc::new(keys),
            settings: Arc::new(RequestSettings::new(&config.web, &config.download)),
            limits: config.web.limits(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

fn describe(sandbox: &Sandbox, mode: &Mode) {
    let (layers, helper) = (sandbox.layers(), sandbox.helper().display());
    info!(%layers, %helper, "the sandbox holds");
    if *mode == Mode::Degraded {
        warn!("sandbox.mode is degraded: whatever holds is used, even if that is next to nothing");
    }
}

/// On what the service manager passed, or else where `[web]` says.
async fn listen(address: &Listen, passed: Option<PassedSocket>) -> Result<Listener, StartError> {
    if passed.is_some() {
        info!(
            "the service manager has passed a socket: web.host, web.port and web.socket are not used"
        );
    }
    let listener = match passed {
        None => Listener::bind(address).await?,
        Some(PassedSocket::Tcp(socket)) => {
            Listener::from_std_tcp(socket).map_err(StartError::PassedSocket)?
        }
        Some(PassedSocket::Unix(socket)) => {
            Listener::from_std_unix(socket).map_err(StartError::PassedSocket)?
        }
    };
    match listener.local_addr() {
        Ok(address) => info!(%address, "listening"),
        Err(error) => warn!(%error, "listening, but the address cannot be told"),
    }
    Ok(listener)
}

/// Listens for the operator; what it gives serves them until it is dropped.
async fn operations(
    settings: operations::Settings,
    registry: Registry,
    gauges: Gauges,
) -> Result<impl Future<Output = ()>, StartError> {
    let listener = Listener::bind(&settings.listen).await.map_err(StartError::Operations)?;
    match listener.local_addr() {
        Ok(address) => info!(%address, "metrics and health are here"),
        Err(error) => warn!(%error, "metrics and health are there, but the address cannot be told"),
    }
    Ok(operations::serve(listener, registry, gauges))
}

/// Lets the workers end what they have begun, until `end`; what is left then is killed.
async fn drain(scanner: &Scanner, mut workers: JoinSet<()>, end: Instant) {
    scanner.close();
    let done = async { while workers.join_next().await.is_some() {} };
    if timeout_at(end, done).await.is_err() {
        warn!("the grace time is over: scans are killed");
        // Their sandboxes see the sockets close, kill what runs and clean up.
        workers.shutdown().await;
    }
}

/// Until the last helper has removed its job's directory, for a short while.
async fn cleaned(directory: &RunDirectory) {
    let end = Instant::now() + CLEANING;
    while !directory.is_empty() && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
}

/// Connections, jobs and their pipes take descriptors; the soft limit is often 1024 for programs that
/// use select(2), which this one does not.
fn raise_descriptor_limit(max_connections: usize) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard
        && let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        warn!(%errno, soft, hard, "the limit of open files could not be raised");
    }
    if hard < max_connections as u64 {
        warn!(hard, max_connections, "the limit of open files is below web.max_connections");
    }
}

/// Names in the MIME lists that no file is ever found to have.
#[must_use]
pub fn unknown_types(config: &Config, detector: &Detector) -> Vec<String> {
    let names = config.scan.mime.names();
    let mut unknown: Vec<_> =
        names.filter(|name| !detector.knows(name)).map(str::to_owned).collect();
    unknown.sort_unstable();
    unknown
}

fn report(notice: &KeyNotice) {
    match notice {
        KeyNotice::Generated { path } => {
            warn!(path = %path.display(), "made a new request key; clients fetch it anew");
        }
        notice @ KeyNotice::ReadableByOthers { .. } => warn!("{notice}"),
    }
}

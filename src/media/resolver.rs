//! Resolves host names with a time limit, for hosts that are not configured to globally reachable addresses only.

use std::{
    error::Error,
    fs::File,
    hash::{BuildHasher, RandomState},
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{task::spawn_blocking, time::timeout};

use super::address::is_global;
use crate::{
    exhaustion::is_exhaustion,
    tenancy::{
        Tenant, TenantGroup,
        fair_slots::{FairSlot, FairSlots},
        registrable_domain,
    },
};

/// Time limit of one lookup, including the wait for a slot. The resolver of the C library waits longer for a name
/// server that does not answer: 10 s for each, by resolv.conf(5).
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of concurrent lookups, besides as many that were demoted for other domains. Leaves most blocking
/// threads to file operations.
const MAX_LOOKUPS: usize = 64;

/// Reason why a name has no usable address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot resolve {name}")]
pub struct ResolutionError {
    pub(super) name: String,
    #[source]
    pub(super) cause: ResolutionFailure,
}

#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ResolutionFailure {
    #[error("no answer from the name server within {} s", LOOKUP_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the lookup failed")]
    Failed(#[source] Arc<io::Error>),
    #[error("no globally reachable address")]
    NotGlobal,
}

impl ResolutionError {
    /// Returns whether the name server did not answer in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.cause, ResolutionFailure::TimedOut)
    }
}

type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Source of addresses, and its time limit.
#[derive(Clone)]
pub(super) struct NameService {
    lookup: Arc<Lookup>,
    timeout: Duration,
}

impl NameService {
    /// The resolver of the system, with its hosts file.
    pub(super) fn system() -> Self {
        // The connector replaces port 0 with the port of the URL.
        let lookup = |name: &str| {
            let addresses = (name, 0).to_socket_addrs().map_err(actual_cause)?;
            Ok(addresses.collect())
        };
        Self { lookup: Arc::new(lookup), timeout: LOOKUP_TIMEOUT }
    }

    #[cfg(test)]
    pub(super) fn fake(
        timeout: Duration,
        lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self { lookup: Arc::new(lookup), timeout }
    }
}

/// Returns the actual cause of a failed lookup. The C library may report that a name does not exist when it lacks the
/// descriptors for its configuration, the hosts file or a socket.
fn actual_cause(error: io::Error) -> io::Error {
    match File::open("/") {
        Err(probe) if is_exhaustion(&probe) => probe,
        _ => error,
    }
}

/// Resolver of one HTTP client. The client connects to the addresses that were checked, so a name cannot change between
/// check and use.
pub(super) struct Resolver {
    names: NameService,
    only_global: bool,
    /// Limits concurrent lookups: each occupies a blocking thread for as long as the name server takes. Shared fairly
    /// between registrable domains, because the names of one domain usually have the same name servers.
    slots: FairSlots,
    hasher: RandomState,
}

impl Resolver {
    pub(super) fn new(names: NameService, only_global: bool) -> Self {
        let (slots, hasher) = (FairSlots::new(MAX_LOOKUPS), RandomState::new());
        Self { names, only_global, slots, hasher }
    }

    /// Waits for a slot for a lookup of this name. A lookup is demotable from its start, because it only waits for the
    /// network.
    fn acquire_slot(&self, name: &str) -> impl Future<Output = Option<FairSlot>> + Send + 'static {
        let tenant = Tenant::Domain(self.hasher.hash_one(registrable_domain(name)));
        let slots = self.slots.clone();
        async move { slots.acquire(&TenantGroup { tenant, group: 0 }, true).await }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let NameService { lookup, timeout: limit } = self.names.clone();
        let (only_global, slot) = (self.only_global, self.acquire_slot(name.as_str()));
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let looked_up = timeout(limit, look_up(lookup, slot, name.clone())).await;
            let result = looked_up.unwrap_or(Err(ResolutionFailure::TimedOut));
            let addresses = result.and_then(|mut addresses| {
                addresses.retain(|address| !only_global || is_global(address.ip()));
                if addresses.is_empty() { Err(ResolutionFailure::NotGlobal) } else { Ok(addresses) }
            });
            match addresses {
                Ok(addresses) => Ok(Box::new(addresses.into_iter()) as Addrs),
                Err(cause) => {
                    Err(Box::new(ResolutionError { name, cause }) as Box<dyn Error + Send + Sync>)
                }
            }
        })
    }
}

async fn look_up(
    lookup: Arc<Lookup>,
    slot: impl Future<Output = Option<FairSlot>>,
    name: String,
) -> Result<Vec<SocketAddr>, ResolutionFailure> {
    let slot = slot.await;
    let task = spawn_blocking(move || {
        // Released when the thread is free, even if the caller was cancelled before.
        let _slot = slot;
        lookup(&name)
    });
    let failed = |error| ResolutionFailure::Failed(Arc::new(error));
    let addresses = task.await.map_err(|error| failed(error.into()))?.map_err(failed)?;
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "no address")));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::mpsc,
    };

    use super::*;

    async fn resolve(resolver: &Resolver, name: &str) -> Result<Vec<IpAddr>, ResolutionError> {
        match resolver.resolve(name.parse().unwrap()).await {
            Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
            Err(error) => Err(*error.downcast().unwrap()),
        }
    }

    #[tokio::test]
    async fn lookup_ends_at_its_time_limit() {
        let (stop, stopped) = mpsc::channel::<()>();
        let stopped = std::sync::Mutex::new(stopped);
        let names = NameService::fake(Duration::from_millis(20), move |_| {
            // A name server that does not answer.
            let _ = stopped.lock().unwrap().recv();
            Err(io::ErrorKind::TimedOut.into())
        });
        for only_global in [true, false] {
            let resolver = Resolver::new(names.clone(), only_global);
            let error = resolve(&resolver, "silent.example").await.unwrap_err();
            assert!(error.is_timeout() && error.name == "silent.example", "{error}");
        }
        drop(stop);
        assert_eq!(NameService::system().timeout, Duration::from_secs(3));
    }

    #[tokio::test]
    async fn hanging_names_of_one_domain_do_not_delay_other_domains() {
        let (stop, stopped) = mpsc::channel::<()>();
        let stopped = std::sync::Mutex::new(stopped);
        let (started, mut running) = tokio::sync::mpsc::unbounded_channel();
        // Only a failing test reaches this limit.
        let names = NameService::fake(Duration::from_secs(20), move |name| {
            started.send(name.to_owned()).unwrap();
            if name.ends_with("silent.example") {
                let _ = stopped.lock().unwrap().recv();
                return Err(io::ErrorKind::TimedOut.into());
            }
            Ok(vec![(Ipv4Addr::new(1, 1, 1, 1), 0).into()])
        });
        let resolver = Arc::new(Resolver::new(names, true));
        let hanging: Vec<_> = (0..2 * MAX_LOOKUPS)
            .map(|number| {
                let (resolver, name) = (Arc::clone(&resolver), format!("s{number}.silent.example"));
                tokio::spawn(async move { resolve(&resolver, &name).await })
            })
            .collect();
        for _ in 0..MAX_LOOKUPS {
            running.recv().await.unwrap();
        }
        // Each ends although no hanging lookup has ended.
        for name in ["a.example", "b.other.example", "c.other.example", "d.example"] {
            resolve(&resolver, name).await.unwrap();
            assert_eq!(running.recv().await.unwrap(), name);
        }
        assert!(running.try_recv().is_err(), "the other names of the domain wait");
        drop(stop);
        for lookup in hanging {
            lookup.await.unwrap().unwrap_err();
        }
        assert!(resolver.slots.is_idle());
    }

    #[tokio::test]
    async fn only_global_addresses_where_required() {
        let (global, private) = (Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(10, 0, 0, 1));
        let names = NameService::fake(LOOKUP_TIMEOUT, move |name| {
            let addresses = match name {
                "both.example" => vec![private, global],
                "private.example" => vec![private],
                "none.example" => vec![],
                _ => return Err(io::ErrorKind::NotFound.into()),
            };
            Ok(addresses.into_iter().map(|address| (address, 0).into()).collect())
        });
        let checked = Resolver::new(names.clone(), true);
        let configured = Resolver::new(names, false);
        assert_eq!(resolve(&checked, "both.example").await.unwrap(), [global]);
        assert_eq!(resolve(&configured, "both.example").await.unwrap(), [private, global]);
        assert_eq!(resolve(&configured, "private.example").await.unwrap(), [private]);
        let error = resolve(&checked, "private.example").await.unwrap_err();
        assert!(matches!(error.cause, ResolutionFailure::NotGlobal));
        for name in ["none.example", "unknown.example"] {
            for resolver in [&checked, &configured] {
                let error = resolve(resolver, name).await.unwrap_err();
                assert!(matches!(error.cause, ResolutionFailure::Failed(_)), "{error}");
            }
        }
    }
}

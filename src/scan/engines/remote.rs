//! The remote engines.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    changes::{ChangeNotifier, ChangeReceiver},
    clamd::Clamd,
    engine_server::EngineServer,
    error::EngineSetupError,
    icap::Icap,
    names::{CLAMD, ICAP},
    settings::EngineSettings,
};

/// The remote engines, with their connections, server states and versions. Shared by all [`super::Engines`] with
/// the same settings.
#[derive(Default, Debug)]
pub struct RemoteEngines {
    pub(super) clamd: Option<Arc<Clamd>>,
    pub(super) icap: Option<Arc<Icap>>,
    changes: ChangeNotifier,
}

impl RemoteEngines {
    /// Creates the remote engines without connecting. Blocking with `icaps` URLs: reads certificates.
    ///
    /// # Errors
    /// TLS is configured and cannot be set up.
    pub fn new(settings: &[EngineSettings]) -> Result<Self, EngineSetupError> {
        let mut engines = Self::default();
        for engine in settings {
            match engine {
                EngineSettings::Script(_)
                | EngineSettings::Rules(_)
                | EngineSettings::Hashes(_) => {}
                EngineSettings::Clamd(clamd) => engines.clamd = Some(Arc::new(Clamd::new(clamd))),
                EngineSettings::Icap(icap) => engines.icap = Some(Arc::new(Icap::new(icap)?)),
            }
        }
        Ok(engines)
    }

    /// Reads the versions of all servers. Takes a few seconds at most.
    pub async fn read_versions(&self) {
        let clamd = async {
            if let Some(clamd) = &self.clamd {
                clamd.read_versions().await;
            }
        };
        let icap = async {
            if let Some(icap) = &self.icap {
                icap.read_options(&self.changes).await;
            }
        };
        tokio::join!(clamd, icap);
    }

    /// Receives later changes of the engines, in place of earlier receivers.
    pub fn subscribe(&self) -> ChangeReceiver {
        self.changes.subscribe()
    }

    /// Returns each engine's name and its last known versions, for display.
    #[must_use]
    pub fn versions(&self) -> Vec<(&'static str, Option<String>)> {
        let clamd = self.clamd.iter().map(|clamd| (CLAMD, clamd.versions()));
        clamd.chain(self.icap.iter().map(|icap| (ICAP, icap.versions()))).collect()
    }

    /// Returns each engine's name and the states of its servers, after [`Self::read_versions`] or a scan.
    #[must_use]
    pub fn servers(&self) -> Vec<(&'static str, Vec<EngineServer>)> {
        let clamd = self.clamd.iter().map(|clamd| (CLAMD, clamd.servers()));
        clamd.chain(self.icap.iter().map(|icap| (ICAP, icap.servers()))).collect()
    }

    /// Returns the addresses of the engine's servers that do not respond; of all of them if each responds. Empty for an
    /// engine without servers.
    #[must_use]
    pub fn failing_addresses(&self, engine: &str) -> Vec<String> {
        let servers = self.servers().into_iter().find(|(name, _)| *name == engine);
        let mut servers = servers.map(|(_, servers)| servers).unwrap_or_default();
        if servers.iter().any(|server| server.failure.is_some()) {
            servers.retain(|server| server.failure.is_some());
        }
        servers.into_iter().map(|server| server.address).collect()
    }

    /// Reads versions every `interval` until the engines are dropped.
    pub async fn poll_versions(engines: Weak<Self>, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            match engines.upgrade() {
                Some(engines) => engines.read_versions().await,
                None => return,
            }
        }
    }
}

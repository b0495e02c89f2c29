//! What operators see and change: verdicts and media entries.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use super::Scanner;
use crate::{
    media::MediaId,
    scan::{
        cache::{ForgetReport, KnownContent, KnownMedia, VerdictFilter, VerdictList},
        canary::CanaryState,
        decisions::DecisionKeeper,
        engines::{EngineIdentity, ListedFile},
        operator_error::OperatorError,
        recent::{RecentScans, TenantLoad},
    },
};

impl Scanner {
    /// Returns verdicts, the latest scans first.
    ///
    /// # Errors
    /// If the store or the script's file cannot be read.
    pub async fn known_verdicts(
        &self,
        filter: VerdictFilter,
    ) -> Result<VerdictList, OperatorError> {
        let engines = self.identity().await?;
        let policies = self.pipeline.context.engines.policies().with_paths();
        Ok(self.pipeline.cache.known_verdicts(filter, &engines, &policies).await?)
    }

    /// Returns the verdicts on a content.
    ///
    /// # Errors
    /// If the store or the script's file cannot be read.
    pub async fn known_content(&self, content: [u8; 32]) -> Result<KnownContent, OperatorError> {
        let engines = self.identity().await?;
        let policies = self.pipeline.context.engines.policies().with_paths();
        Ok(self.pipeline.cache.known_content(content, &engines, &policies).await?)
    }

    /// Returns the entries of a media URI.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn media_entries(&self, mxc: &MediaId) -> Result<Vec<KnownMedia>, OperatorError> {
        Ok(self.pipeline.cache.known_media(mxc).await?)
    }

    /// Returns the media entries of contents, and whether they are complete.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn media_of_contents(
        &self,
        contents: &HashSet<[u8; 32]>,
    ) -> Result<(HashMap<[u8; 32], Vec<KnownMedia>>, bool), OperatorError> {
        Ok(self.pipeline.cache.media_of_contents(contents).await?)
    }

    /// Returns the decision of an operator about a content, or its entry in the lists of hashes. It has precedence over
    /// verdicts.
    #[must_use]
    pub fn listed(&self, content: &[u8; 32]) -> Option<ListedFile> {
        self.pipeline.listed(content)
    }

    /// Returns the decisions of operators.
    #[must_use]
    pub fn decisions(&self) -> &DecisionKeeper {
        &self.pipeline.decisions
    }

    /// Returns the latest verdicts and the counts of the latest minutes.
    #[must_use]
    pub fn recent(&self) -> &RecentScans {
        &self.pipeline.recent
    }

    /// Returns the jobs of each tenant that has any, those with the most jobs first.
    #[must_use]
    pub fn tenant_loads(&self) -> Vec<TenantLoad> {
        let load = |(tenant, waiting, running)| {
            let tenant = self.pipeline.recent.tenant_name(&tenant);
            TenantLoad { tenant, waiting, running }
        };
        let mut loads: Vec<_> = self.queue.tenants().into_iter().map(load).collect();
        loads.sort_by_key(|load| Reverse((load.running, load.waiting)));
        loads
    }

    /// Returns the engines in the configured order, with the last known versions of those that report any.
    #[must_use]
    pub fn engine_versions(&self) -> Vec<(&'static str, Option<String>)> {
        let engines = &self.pipeline.context.engines;
        let mut versions = engines.remote_engines().versions();
        let mut version = |name| {
            let index = versions.iter().position(|(engine, _)| *engine == name)?;
            versions.swap_remove(index).1
        };
        engines.names().map(|name| (name, version(name))).collect()
    }

    /// Returns the latest result of the canary.
    #[must_use]
    pub fn canary(&self) -> CanaryState {
        self.pipeline.canary.borrow().clone()
    }

    /// Removes all verdicts on a content.
    ///
    /// # Errors
    /// If the store cannot be changed, or the script's file cannot be read.
    pub async fn forget_content(&self, content: [u8; 32]) -> Result<ForgetReport, OperatorError> {
        let engines = self.identity().await?;
        Ok(self.pipeline.cache.forget_content(content, &engines).await?)
    }

    /// Removes the entries of a media URI, and all verdicts on their contents.
    ///
    /// # Errors
    /// If the store cannot be changed, or the script's file cannot be read.
    pub async fn forget_media(&self, mxc: &MediaId) -> Result<ForgetReport, OperatorError> {
        let engines = self.identity().await?;
        Ok(self.pipeline.cache.forget_media(mxc, &engines).await?)
    }

    /// Removes all verdicts and media entries.
    ///
    /// # Errors
    /// If the store cannot be changed yet.
    pub async fn forget_all(&self) -> Result<ForgetReport, OperatorError> {
        Ok(self.pipeline.cache.forget_all().await?)
    }

    async fn identity(&self) -> Result<EngineIdentity, OperatorError> {
        self.pipeline.context.engines.identity().await.ok_or(OperatorError::NoIdentity)
    }
}

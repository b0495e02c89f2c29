//! Builder of a sandbox.

use std::path::Path;
use std::sync::Arc;

use crate::capacity::EffectiveLimits;
use crate::error::Error;
use crate::layers::{Layer, Layers, Plan};
use crate::policy::Policy;
use crate::probe;
use crate::sandbox::{Helper, Sandbox};

/// A sandbox with a policy whose available layers are not determined yet.
#[derive(Debug)]
pub struct SandboxBuilder {
    helper: Arc<Helper>,
    policy: Arc<Policy>,
    /// Number of programs at once that the limits are fitted to; `None` uses the policy's limits unchanged.
    programs: Option<u64>,
}

impl SandboxBuilder {
    /// Uses as helper the file `mcs-sandbox` beside this executable if it has the same build, else this executable,
    /// whose `main` must call [`dispatch`](crate::dispatch()). Blocks while the helper prints its build id
    /// (milliseconds, at most 5 s).
    pub fn new(policy: Policy) -> Result<Self, Error> {
        let policy = Arc::new(policy.validated()?);
        let helper = Arc::new(Helper::find()?);
        Ok(Self { helper, policy, programs: None })
    }

    /// Creates a builder with the given helper: `mcs-sandbox`, or a program whose `main` calls
    /// [`dispatch`](crate::dispatch()).
    pub fn with_helper(path: &Path, policy: Policy) -> Result<Self, Error> {
        let policy = Arc::new(policy.validated()?);
        let helper = Arc::new(Helper::open(path)?);
        Ok(Self { helper, policy, programs: None })
    }

    /// Fits the limits `processes` and `open_files` to the machine, so that `programs` programs at once leave tasks,
    /// descriptors and epoll watches for the server and others. The result is in [`Sandbox::limits`].
    #[must_use]
    pub fn for_programs(mut self, programs: usize) -> Self {
        self.programs = Some(u64::try_from(programs).unwrap_or(u64::MAX));
        self
    }

    /// Runs a complete job in `parent` to determine the available layers: the job's shell inspects its own
    /// restrictions. Then verifies that the job left nothing behind. A layer that fails is turned off, with the reason,
    /// and the probe is repeated. Every layer that passes is enforced for all jobs.
    ///
    /// # Errors
    /// [`Error::InsufficientLayers`] if the policy's mode requires more layers, [`Error::TooFewTasks`], or the error of
    /// the base layer.
    pub async fn probe(self, parent: &Path) -> Result<Sandbox, Error> {
        probe::probe(&self.policy, |layers| self.build(layers), parent).await
    }

    /// Builds a sandbox with exactly these layers without probing them, for tests of machines with fewer layers.
    ///
    /// # Errors
    /// [`Error::TooFewTasks`], only after [`for_programs`](Self::for_programs).
    pub fn build_unprobed(self, layers: &[Layer]) -> Result<Sandbox, Error> {
        let plan = Plan::from_layers(layers, &self.policy);
        let turned_off = Layer::ALL.into_iter().filter(|layer| !plan.has(*layer));
        let off = turned_off.map(|layer| (layer, "turned off".to_owned())).collect();
        self.build(Layers {
            plan,
            base: "not probed".to_owned(),
            off,
            no_users: None,
            no_host_name: None,
            no_cgroup: None,
        })
    }

    fn build(&self, layers: Layers) -> Result<Sandbox, Error> {
        let limits = match self.programs {
            Some(programs) => EffectiveLimits::for_machine(&self.policy, layers.plan, programs)?,
            None => EffectiveLimits::unchanged(&self.policy.limits),
        };
        Ok(Sandbox::new(&self.helper, &self.policy, layers, limits))
    }
}

impl Sandbox {
    /// Returns a builder with another policy that keeps the open helper, even if its file has been replaced, and the
    /// location of the jobs' control groups.
    pub fn with_policy(&self, mut policy: Policy) -> Result<SandboxBuilder, Error> {
        policy.cgroup = self.policy().cgroup.clone();
        let policy = Arc::new(policy.validated()?);
        Ok(SandboxBuilder { helper: Arc::clone(self.shared_helper()), policy, programs: None })
    }
}

//! Fair sharing of bounded resources between tenants: the job queue, authorisation requests and the spool count usage
//! per tenant, so that a flood by one tenant does not starve the others. Imports nothing of the service but the mutex.

mod address;
pub(crate) mod fair_queue;
pub(crate) mod fair_semaphore;
mod tenant;

pub(crate) use address::ClientNetwork;
pub(crate) use tenant::{Tenant, TenantHasher, Tenants};

//! Fair sharing of bounded resources between tenants: the job queue, authorisation requests and the spool count usage
//! per tenant, so that a flood by one tenant does not starve the others. Imports nothing of the service but the mutex.

#[cfg_attr(not(test), expect(dead_code, reason = "used in the next commits"))]
mod address;
pub(crate) mod fair_queue;
pub(crate) mod fair_semaphore;
mod tenant;

#[expect(
    unused_imports,
    reason = "used by the connection table and the tenants of requests, in the next commits"
)]
pub(crate) use address::ClientNetwork;
pub(crate) use tenant::{Tenant, TenantHasher, Tenants};

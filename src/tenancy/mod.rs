//! Fair sharing of bounded resources between tenants: the job queue, authorisation requests, scan slots and the spool
//! count usage per tenant, so that a flood by one tenant does not starve the others. Name lookups count usage per
//! domain. Limits apply only while another tenant waits. Imports nothing of the service but the mutex.

mod address;
mod domain;
pub(crate) mod fair_queue;
pub(crate) mod fair_slots;
mod schedule;
mod table;
mod tenant;

#[cfg(test)]
pub(crate) use self::{
    fair_slots::WAITER_BYTES as SLOT_WAITER_BYTES,
    schedule::COUNTS_BYTES,
    table::{CAPACITY as MAX_ACCEPTED, TOKEN_BYTES},
};
pub(crate) use address::ClientNetwork;
pub(crate) use domain::registrable_domain;
pub(crate) use schedule::Demotable;
pub(crate) use table::{SentToken, TenantTable};
pub(crate) use tenant::{Tenant, TenantGroup, TenantName, TenantNames};

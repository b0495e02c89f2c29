//! The mutex of [`crate::single_flight`] and [`crate::tenancy`]. It has a module of its own so that the model tests
//! (`tests/model`) can compile those files with a mutex that explores interleavings.

pub(crate) use parking_lot::{Mutex, MutexGuard};

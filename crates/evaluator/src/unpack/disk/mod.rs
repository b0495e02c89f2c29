//! Images of disks.

pub(super) mod iso;

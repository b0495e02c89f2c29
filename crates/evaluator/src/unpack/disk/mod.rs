//! Images of disks.

pub(super) mod fat;
pub(super) mod iso;
pub(super) mod partitions;
pub(super) mod vhd;

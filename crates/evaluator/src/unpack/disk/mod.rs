//! Images of disks.

mod blocks;
pub(super) mod fat;
pub(super) mod iso;
pub(super) mod partitions;
pub(super) mod qcow;
pub(super) mod udif;
pub(super) mod vhd;
pub(super) mod vmdk;

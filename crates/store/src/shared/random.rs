//! Random numbers that need not be secret: names of nodes, and pauses that differ between replicas.

use parking_lot::Mutex;

/// Generator of random numbers, `SplitMix64`. A simulation sets its start.
pub(crate) struct NodeRandom(Mutex<u64>);

impl NodeRandom {
    /// Starts with random bytes of the system.
    pub(crate) fn from_system() -> Result<Self, getrandom::Error> {
        Ok(Self::from_seed(getrandom::u64()?))
    }

    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, or 0 if `bound` is 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }
}

//! Decoder of one filter, and its parameters.

/// Entries of `DecodeParms`, with the defaults of tables 8 and 9 in 7.4.4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FilterParameters {
    pub(super) predictor: u32,
    pub(super) colors: u32,
    pub(super) bits: u32,
    pub(super) columns: u32,
    pub(super) early_change: u32,
}

impl Default for FilterParameters {
    fn default() -> Self {
        Self { predictor: 1, colors: 1, bits: 8, columns: 1, early_change: 1 }
    }
}

/// Result of a step.
pub(super) enum StageStep {
    More,
    End,
    /// The data are invalid. The output before is valid.
    Failed(&'static str),
}

/// Decoder of one filter.
pub(super) trait FilterStage {
    /// Decodes a part of the input, appends to `output`, and returns how many bytes it has used. Empty input is the end.
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, StageStep);
}

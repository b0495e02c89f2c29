//! Predictors of Flate and LZW data, ISO 32000-2, 7.4.4.4: an attachment may use one as well as an image.

use super::stage::{FilterParameters, FilterStage, StageStep};

/// Maximum length of a row, bytes: a row of 1 000 000 pixels in CMYK with 16 bits.
const MAX_ROW: u64 = 8 << 20;

pub(super) struct PredictorStage {
    parameters: FilterParameters,
    /// Length of a row without its tag, bytes; `None` if it is invalid.
    row_length: Option<usize>,
    /// Number of bytes between a sample and the one to its left, at least 1.
    distance: usize,
    previous: Vec<u8>,
    /// The incomplete row, with its tag.
    row: Vec<u8>,
}

impl PredictorStage {
    pub(super) fn new(parameters: FilterParameters) -> Self {
        let FilterParameters { colors, bits, columns, .. } = parameters;
        let pixel = u64::from(colors).saturating_mul(bits.into());
        let length = pixel.saturating_mul(columns.into()).div_ceil(8);
        let is_valid = (1..=MAX_ROW).contains(&length) && matches!(bits, 1 | 2 | 4 | 8 | 16);
        Self {
            parameters,
            row_length: usize::try_from(length).ok().filter(|_| is_valid),
            distance: usize::try_from(pixel.div_ceil(8)).unwrap_or(1).max(1),
            previous: Vec::new(),
            row: Vec::new(),
        }
    }

    fn is_png(&self) -> bool {
        self.parameters.predictor >= 10
    }

    /// Decodes the complete row, or the incomplete last one.
    fn finish_row(&mut self, output: &mut Vec<u8>) {
        if self.is_png() {
            let Some((tag, row)) = self.row.split_first() else { return };
            let row = png_row(*tag, row, &self.previous, self.distance);
            output.extend_from_slice(&row);
            self.previous = row;
        } else {
            let FilterParameters { colors, bits, .. } = self.parameters;
            tiff_row(&mut self.row, usize::try_from(colors).unwrap_or(1), bits);
            output.extend_from_slice(&self.row);
        }
        self.row.clear();
    }
}

impl FilterStage for PredictorStage {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, StageStep) {
        let Some(row_length) = self.row_length else {
            return (0, StageStep::Failed("invalid predictor"));
        };
        if input.is_empty() {
            self.finish_row(output);
            return (0, StageStep::End);
        }
        let length = row_length + usize::from(self.is_png());
        let mut rest = input;
        while !rest.is_empty() {
            let missing = length.saturating_sub(self.row.len()).min(rest.len());
            let (part, after) = rest.split_at(missing);
            self.row.extend_from_slice(part);
            rest = after;
            if self.row.len() >= length {
                self.finish_row(output);
            }
        }
        (input.len(), StageStep::More)
    }
}

/// Undoes a filter of PNG, W3C PNG 9.2.
fn png_row(tag: u8, row: &[u8], previous: &[u8], distance: usize) -> Vec<u8> {
    let mut decoded: Vec<u8> = Vec::with_capacity(row.len());
    for (index, byte) in row.iter().enumerate() {
        let at = |bytes: &[u8], index: Option<usize>| {
            index.and_then(|index| bytes.get(index)).copied().unwrap_or_default()
        };
        let left_index = index.checked_sub(distance);
        let left = at(&decoded, left_index);
        let above = at(previous, Some(index));
        let predicted = match tag {
            1 => left,
            2 => above,
            3 => u8::midpoint(left, above),
            4 => paeth(left, above, at(previous, left_index)),
            _ => 0,
        };
        decoded.push(byte.wrapping_add(predicted));
    }
    decoded
}

fn paeth(left: u8, above: u8, above_left: u8) -> u8 {
    let estimate = i16::from(left) + i16::from(above) - i16::from(above_left);
    let distance = |value: u8| (estimate - i16::from(value)).abs();
    if distance(left) <= distance(above) && distance(left) <= distance(above_left) {
        left
    } else if distance(above) <= distance(above_left) {
        above
    } else {
        above_left
    }
}

/// Adds to each sample the one to its left, TIFF 6.0, section 14.
fn tiff_row(row: &mut [u8], colors: usize, bits: u32) {
    match bits {
        8 => {
            for index in colors..row.len() {
                let left = row.get(index - colors).copied().unwrap_or_default();
                if let Some(sample) = row.get_mut(index) {
                    *sample = sample.wrapping_add(left);
                }
            }
        }
        16 => {
            let (samples, _odd) = row.as_chunks_mut::<2>();
            for index in colors..samples.len() {
                let left = samples.get(index - colors).copied().unwrap_or_default();
                if let Some(sample) = samples.get_mut(index) {
                    let sum = u16::from_be_bytes(*sample).wrapping_add(u16::from_be_bytes(left));
                    *sample = sum.to_be_bytes();
                }
            }
        }
        _ => tiff_row_of_bits(row, colors, bits),
    }
}

fn tiff_row_of_bits(row: &mut [u8], colors: usize, bits: u32) {
    let bits = usize::try_from(bits).unwrap_or(8);
    let mask = (1_u8 << bits) - 1;
    let per_byte = 8 / bits;
    let shift = |index: usize| 8 - bits - index % per_byte * bits;
    for index in colors..row.len().saturating_mul(per_byte) {
        let left = index - colors;
        let left = row.get(left / per_byte).map_or(0, |byte| byte >> shift(left));
        if let Some(byte) = row.get_mut(index / per_byte) {
            let sample = (*byte >> shift(index)).wrapping_add(left) & mask;
            *byte = *byte & !(mask << shift(index)) | sample << shift(index);
        }
    }
}

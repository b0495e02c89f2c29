//! Filters of streams, ISO 32000-2, 7.4, as readers whose memory is bounded.

use std::io::{self, BufRead, Read};

use flate2::{Decompress, FlushDecompress, Status};
use weezl::{BitOrder, LzwStatus, decode::Decoder};

use super::{
    ascii::{Ascii85Stage, AsciiHexStage, RunLengthStage},
    predictor::PredictorStage,
    stage::{FilterParameters, FilterStage, StageStep},
};

/// Maximum number of bytes that a stage takes from its input at once. Run lengths expand it 64 times.
const MAX_CHUNK: usize = 4096;

/// Number of bytes that a decompressor returns at once.
const OUTPUT: usize = 32 << 10;

/// A filter that is decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PdfFilter {
    Flate,
    Lzw,
    AsciiHex,
    Ascii85,
    RunLength,
}

/// Filters in the order in which they are applied to decode a stream.
pub(super) type FilterChain = Vec<(PdfFilter, FilterParameters)>;

/// How Flate data without a valid zlib header are read. Viewers differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FlateStart {
    /// The header is missing.
    Missing,
    /// The header is damaged.
    Damaged,
    /// The header is missing, although the first bytes look like one.
    Ignored,
}

/// Returns a reader of the decoded bytes.
pub(super) fn decoder<'a>(
    raw: &'a [u8],
    chain: &[(PdfFilter, FilterParameters)],
    start: FlateStart,
) -> Box<dyn BufRead + 'a> {
    let mut reader: Box<dyn BufRead + 'a> = Box::new(raw);
    for (filter, parameters) in chain {
        reader = match filter {
            PdfFilter::Flate => StageReader::boxed(reader, FlateStage::new(start)),
            PdfFilter::Lzw => StageReader::boxed(reader, LzwStage::new(parameters.early_change)),
            PdfFilter::AsciiHex => StageReader::boxed(reader, AsciiHexStage::default()),
            PdfFilter::Ascii85 => StageReader::boxed(reader, Ascii85Stage::default()),
            PdfFilter::RunLength => StageReader::boxed(reader, RunLengthStage::default()),
        };
        if matches!(filter, PdfFilter::Flate | PdfFilter::Lzw) && parameters.predictor > 1 {
            reader = StageReader::boxed(reader, PredictorStage::new(*parameters));
        }
    }
    reader
}

/// Returns whether data begin with a zlib header, RFC 1950, 2.2.
pub(super) fn has_zlib_header(data: &[u8]) -> bool {
    let [method, flags, ..] = *data else { return false };
    method & 0x0f == 8 && u16::from_be_bytes([method, flags]) % 31 == 0
}

/// Applies a stage to a reader.
struct StageReader<'a, S> {
    input: Box<dyn BufRead + 'a>,
    stage: S,
    output: Vec<u8>,
    position: usize,
    is_at_end: bool,
    /// Returned after the output.
    failure: Option<&'static str>,
}

impl<'a, S: FilterStage + 'a> StageReader<'a, S> {
    fn boxed(input: Box<dyn BufRead + 'a>, stage: S) -> Box<dyn BufRead + 'a> {
        let (output, position) = (Vec::new(), 0);
        Box::new(Self { input, stage, output, position, is_at_end: false, failure: None })
    }

    fn advance(&mut self) -> io::Result<()> {
        self.output.clear();
        self.position = 0;
        let input = self.input.fill_buf()?;
        let input = input.get(..MAX_CHUNK).unwrap_or(input);
        let is_last = input.is_empty();
        let (used, step) = self.stage.step(input, &mut self.output);
        self.input.consume(used);
        match step {
            StageStep::More => self.is_at_end = used == 0 && self.output.is_empty(),
            StageStep::End => self.is_at_end = true,
            StageStep::Failed(reason) => {
                self.is_at_end = true;
                self.failure = Some(reason);
            }
        }
        if self.is_at_end && !is_last && matches!(step, StageStep::More) {
            self.failure = Some("the filter makes no progress");
        }
        Ok(())
    }
}

impl<'a, S: FilterStage + 'a> BufRead for StageReader<'a, S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position >= self.output.len() && !self.is_at_end {
            self.advance()?;
        }
        if self.position >= self.output.len()
            && let Some(reason) = self.failure.take()
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(self.output.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.position = self.position.saturating_add(count);
    }
}

impl<'a, S: FilterStage + 'a> Read for StageReader<'a, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let count = available.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// `FlateDecode`. The checksum is not read, and a missing end is no error, as in viewers.
struct FlateStage {
    start: FlateStart,
    /// The first two bytes, until they are complete.
    head: Option<Vec<u8>>,
    state: Decompress,
}

impl FlateStage {
    fn new(start: FlateStart) -> Self {
        Self { start, head: Some(Vec::new()), state: Decompress::new(false) }
    }

    fn inflate(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, StageStep) {
        let (total_in, total_out) = (self.state.total_in(), self.state.total_out());
        output.resize(OUTPUT, 0);
        let status = self.state.decompress(input, output, FlushDecompress::None);
        let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or_default();
        // Also bytes before an error are valid.
        output.truncate(count(self.state.total_out(), total_out));
        let used = count(self.state.total_in(), total_in);
        let step = match status {
            Ok(Status::StreamEnd) => StageStep::End,
            Ok(Status::Ok | Status::BufError) => StageStep::More,
            Err(_) => StageStep::Failed("invalid Flate data"),
        };
        (used, step)
    }
}

impl FilterStage for FlateStage {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, StageStep) {
        let Some(mut head) = self.head.take() else { return self.inflate(input, output) };
        if let Some(first) = input.first()
            && head.len() < 2
        {
            head.push(*first);
            self.head = Some(head);
            return (1, StageStep::More);
        }
        let is_skipped = match self.start {
            FlateStart::Missing => has_zlib_header(&head),
            FlateStart::Damaged => true,
            FlateStart::Ignored => false,
        };
        if is_skipped || head.is_empty() {
            return self.inflate(input, output);
        }
        let (with_head, length) = ([&head, input].concat(), head.len());
        let (used, step) = self.inflate(&with_head, output);
        // Decompressors use all input, unless the output is full.
        (used.saturating_sub(length), step)
    }
}

/// `LZWDecode`.
struct LzwStage(Decoder);

impl LzwStage {
    fn new(early_change: u32) -> Self {
        Self(if early_change == 0 {
            Decoder::new(BitOrder::Msb, 8)
        } else {
            Decoder::with_tiff_size_switch(BitOrder::Msb, 8)
        })
    }
}

impl FilterStage for LzwStage {
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> (usize, StageStep) {
        output.resize(OUTPUT, 0);
        let result = self.0.decode_bytes(input, output);
        output.truncate(result.consumed_out);
        let step = match result.status {
            Ok(LzwStatus::Ok | LzwStatus::NoProgress) => StageStep::More,
            Ok(LzwStatus::Done) => StageStep::End,
            Err(_) => StageStep::Failed("invalid LZW data"),
        };
        (result.consumed_in, step)
    }
}

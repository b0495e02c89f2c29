//! How the data of a stream are decoded, ISO 32000-2, 7.3.8.2.

use super::{
    filter::{FilterChain, PdfFilter},
    lexer::parse_integer,
    objects::{ArrayItems, PdfObjects, name, reference},
    stage::FilterParameters,
};

/// Maximum number of ways to decode one stream, if its dictionary is ambiguous.
const MAX_WAYS: usize = 16;

/// Maximum number of filters of a stream. Writers use one or two.
const MAX_FILTERS: usize = 32;

/// One way to decode a stream.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct StreamDecoding {
    pub(super) chain: FilterChain,
    /// Name of the filter for encryption, if the stream has one.
    pub(super) crypt_filter: Option<Vec<u8>>,
    /// Why filters are omitted.
    pub(super) omitted: Option<OmittedFilter>,
}

/// Filters that are not decoded. They and those after them are omitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OmittedFilter {
    /// The data before this filter are a picture, in most cases a file of its own.
    Picture,
    Unknown,
}

/// Returns the different ways in which viewers may decode a stream, and whether there are more.
pub(super) fn decodings(objects: &PdfObjects, dict: &[u8]) -> (Vec<StreamDecoding>, bool) {
    let values = |long: &[u8], short: &[u8]| {
        let mut values = objects.values(dict, long);
        // The short forms belong to inline images, but viewers accept them. `F` may also be a file.
        values.extend(objects.values(dict, short).into_iter().filter(|value| {
            value.starts_with(b"/")
                || value.starts_with(b"[")
                || value.starts_with(b"<<") && short == b"DP"
        }));
        values.sort_unstable();
        values.dedup();
        values
    };
    let mut filters = values(b"Filter", b"F");
    let mut parameters = values(b"DecodeParms", b"DP");
    if filters.is_empty() {
        filters.push(b"null");
    }
    if parameters.is_empty() {
        parameters.push(b"null");
    }
    let pairs =
        filters.iter().flat_map(|filter| parameters.iter().map(move |other| (filter, other)));
    let mut ways: Vec<StreamDecoding> = Vec::new();
    let mut has_more = false;
    for (filters, parameters) in pairs {
        let way = decoding(objects, filters, parameters);
        has_more |= ways.len() >= MAX_WAYS;
        if ways.len() < MAX_WAYS && !ways.contains(&way) {
            ways.push(way);
        }
    }
    (ways, has_more)
}

fn decoding(objects: &PdfObjects, filters: &[u8], parameters: &[u8]) -> StreamDecoding {
    let mut decoding = StreamDecoding::default();
    let mut parameters = ArrayItems::new(parameters);
    for filter in ArrayItems::new(filters).take(MAX_FILTERS) {
        let parameters = parameters.next().and_then(|value| last(objects, value));
        let Some(filter) = last(objects, filter).and_then(name) else { continue };
        let Some(known) = known_filter(filter) else {
            match filter {
                b"Crypt" => {
                    let name =
                        parameters.and_then(|dict| objects.values(dict, b"Name").pop()?.get(1..));
                    decoding.crypt_filter = Some(name.unwrap_or(b"Identity").to_vec());
                    continue;
                }
                b"DCTDecode" | b"DCT" | b"JPXDecode" | b"CCITTFaxDecode" | b"CCF"
                | b"JBIG2Decode" => {
                    decoding.omitted = Some(OmittedFilter::Picture);
                }
                _ => decoding.omitted = Some(OmittedFilter::Unknown),
            }
            break;
        };
        let parameters = parameters.map(|dict| filter_parameters(objects, dict));
        decoding.chain.push((known, parameters.unwrap_or_default()));
    }
    decoding
}

fn last<'a>(objects: &'a PdfObjects, value: &'a [u8]) -> Option<&'a [u8]> {
    if reference(value).is_some() { objects.resolve(value).pop() } else { Some(value) }
}

fn known_filter(name: &[u8]) -> Option<PdfFilter> {
    match name {
        b"FlateDecode" | b"Fl" => Some(PdfFilter::Flate),
        b"LZWDecode" | b"LZW" => Some(PdfFilter::Lzw),
        b"ASCIIHexDecode" | b"AHx" => Some(PdfFilter::AsciiHex),
        b"ASCII85Decode" | b"A85" => Some(PdfFilter::Ascii85),
        b"RunLengthDecode" | b"RL" => Some(PdfFilter::RunLength),
        _ => None,
    }
}

fn filter_parameters(objects: &PdfObjects, dict: &[u8]) -> FilterParameters {
    let integer = |key: &[u8], default| last_integer(objects, dict, key).unwrap_or(default);
    let default = FilterParameters::default();
    FilterParameters {
        predictor: integer(b"Predictor", default.predictor),
        colors: integer(b"Colors", default.colors),
        bits: integer(b"BitsPerComponent", default.bits),
        columns: integer(b"Columns", default.columns),
        early_change: integer(b"EarlyChange", default.early_change),
    }
}

/// Returns the value of a key that is an integer.
pub(super) fn last_integer(objects: &PdfObjects, dict: &[u8], key: &[u8]) -> Option<u32> {
    objects.values(dict, key).into_iter().rev().find_map(parse_integer)
}

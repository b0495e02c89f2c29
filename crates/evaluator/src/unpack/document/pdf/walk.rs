//! Passes the contents of a PDF to the unpacker.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
    ops::Range,
};

use super::{
    decryption::{EncryptedPart, PdfKey},
    filter::{FlateStart, PdfFilter, decoder, has_zlib_header},
    normal::{HEADER, Normaliser},
    objects::{PdfObject, PdfObjects, name},
    reader::ObjectReader,
    stream::{OmittedFilter, StreamDecoding, decodings, last_integer},
    structure::{NO_NUMBER, PdfStructure},
};
use crate::{
    report::NoteKind,
    unpack::{
        name::EntryName,
        unpacker::{Unpacked, Unpacker, WalkEnd},
    },
};

/// Maximum length of an object stream, bytes. Writers put some hundred objects into one.
const MAX_OBJECT_STREAM: usize = 16 << 20;

/// Streams may overlap; they are decoded up to this multiple of the file's length.
const MAX_OVERLAP: usize = 8;

/// Length of the streams that are decrypted at once, bytes.
const BATCH: usize = 2 << 20;

/// Number of streams that are decrypted at once.
const BATCH_STREAMS: usize = 512;

/// Maximum number of streams in a file.
const MAX_STREAMS: usize = 100_000;

/// Maximum number of times that object streams are read because others contain their filters.
const MAX_ROUNDS: usize = 3;

/// Number of bytes of a picture that are examined. Pictures without compression can be larger than all limits, and
/// viewers only display them. A picture that is also a file is examined as a file.
const MAX_PIXELS: u64 = 1 << 20;

/// Number of decoded bytes that show whether data are valid.
const PROBE: usize = 4096;

/// One walk over the contents, without a key or with one.
pub(super) struct PdfWalk<'w, 'a> {
    pub(super) bytes: &'w [u8],
    pub(super) structure: &'w PdfStructure,
    pub(super) key: Option<&'w PdfKey>,
    /// Whether data that cannot be decoded are no problem.
    pub(super) is_quiet: bool,
    pub(super) unpacker: &'w mut Unpacker<'a>,
}

/// The streams that are files.
struct AttachedFiles {
    names: HashMap<u32, Vec<u8>>,
    numbers: HashSet<u32>,
}

/// The data of a stream.
#[derive(Clone)]
struct StreamData {
    /// Index of the object.
    object: usize,
    /// Range in the file.
    range: Range<usize>,
    decodings: Vec<StreamDecoding>,
}

impl PdfWalk<'_, '_> {
    pub(super) fn run(mut self, mut reader: ObjectReader) -> Unpacked {
        let streams = self.read_object_streams(&mut reader)?;
        if let Some(limit) = reader.limit {
            self.unpacker.note(NoteKind::Limit, limit);
        }
        let objects = reader.objects;
        let mut normaliser = Normaliser::new(&objects);
        for index in 0..objects.list.len() {
            if let Some(text) = normaliser.add(index) {
                self.unpacker.leaf(EntryName::label("normalised"), &text)?;
            }
        }
        let text = normaliser.take();
        if text.len() > HEADER.len() {
            self.unpacker.leaf(EntryName::label("normalised"), &text)?;
        }
        if normaliser.is_limited {
            self.unpacker.note(NoteKind::Limit, "a PDF has too many references to actions");
        }
        self.scripts(&normaliser.scripts)?;
        let files = AttachedFiles { names: normaliser.names, numbers: normaliser.files };
        self.for_each(&objects, &streams, |walk, stream, raw| {
            walk.pass(&objects, &files, stream, raw)
        })
    }

    /// Reads the objects in object streams, and returns all streams. The filters of a stream may be in an object stream.
    fn read_object_streams(
        &mut self,
        reader: &mut ObjectReader,
    ) -> Result<Vec<StreamData>, WalkEnd> {
        let mut read = HashMap::new();
        for _ in 0..MAX_ROUNDS {
            let streams = self.streams(&reader.objects);
            let mut changed = Vec::new();
            for stream in &streams {
                let known = read.get(&(stream.object, stream.range.start));
                if is_object_stream(&reader.objects, stream) && known != Some(&stream.decodings) {
                    let position = (stream.object, stream.range.start);
                    read.insert(position, stream.decodings.clone());
                    changed.push(stream.clone());
                }
            }
            if changed.is_empty() {
                return Ok(streams);
            }
            self.object_streams(reader, &changed)?;
            reader.objects.index();
        }
        Ok(self.streams(&reader.objects))
    }

    /// Passes each script once.
    fn scripts(&mut self, scripts: &[Vec<u8>]) -> Unpacked {
        let mut passed = HashSet::new();
        for script in scripts {
            if passed.insert(script) {
                self.unpacker.slice(EntryName::label("script"), script)?;
            }
        }
        Ok(())
    }

    /// Returns the data of all streams, in each way in which a viewer may find and decode them.
    fn streams(&mut self, objects: &PdfObjects) -> Vec<StreamData> {
        let mut streams = Vec::new();
        let mut room = self.bytes.len().saturating_mul(MAX_OVERLAP).saturating_add(1 << 20);
        for (index, object) in objects.list.iter().enumerate() {
            let Some(after) = object.stream else { continue };
            let dict = objects.value(object);
            let lengths = objects.values(dict, b"Length").into_iter();
            let lengths = lengths.filter_map(super::lexer::parse_integer);
            let lengths = lengths.filter_map(|length| usize::try_from(length).ok());
            let (decodings, has_more) = decodings(objects, dict);
            if has_more {
                self.unpacker.note(NoteKind::Limit, "a stream of a PDF has too many filters");
            }
            for range in self.structure.data(self.bytes, after, lengths) {
                let work = range.len().saturating_mul(decodings.len());
                if work > room || streams.len() >= MAX_STREAMS {
                    self.unpacker
                        .note(NoteKind::Limit, "a PDF has too many streams, or they overlap");
                    return streams;
                }
                room -= work;
                if !range.is_empty() {
                    streams.push(StreamData { object: index, range, decodings: decodings.clone() });
                }
            }
        }
        streams
    }

    /// Calls `act` with the data of each stream, decrypted if there is a key.
    fn for_each(
        &mut self,
        objects: &PdfObjects,
        streams: &[StreamData],
        mut act: impl FnMut(&mut Self, &StreamData, &[u8]) -> Unpacked,
    ) -> Unpacked {
        let bytes = self.bytes;
        let raw = |stream: &StreamData| bytes.get(stream.range.clone()).unwrap_or_default();
        let Some(key) = self.key else {
            return streams.iter().try_for_each(|stream| act(self, stream, raw(stream)));
        };
        let mut rest = streams;
        while !rest.is_empty() {
            let mut length = 0_usize;
            let mut has_room = |stream: &StreamData| {
                let has_room = length < BATCH;
                length = length.saturating_add(stream.range.len());
                has_room
            };
            let count =
                rest.iter().take(BATCH_STREAMS).take_while(|stream| has_room(stream)).count();
            let (batch, after) = rest.split_at(count);
            let mut parts = Vec::new();
            for stream in batch {
                let Some(object) = objects.list.get(stream.object) else { continue };
                let filter = crypt_filter(objects, object, stream, key);
                let part = EncryptedPart::Stream(raw(stream), filter);
                parts.push(((object.number, object.generation), part));
            }
            for (stream, data) in batch.iter().zip(key.decrypt(&parts)) {
                match data {
                    Some(data) => act(self, stream, &data)?,
                    None => {
                        self.unpacker.note(NoteKind::Unreadable, "a stream cannot be decrypted");
                    }
                }
            }
            rest = after;
        }
        Ok(())
    }

    /// Reads the objects in object streams.
    fn object_streams(&mut self, reader: &mut ObjectReader, streams: &[StreamData]) -> Unpacked {
        let objects = std::mem::take(&mut reader.objects);
        let mut contents = ObjectReader::default();
        let result = self.for_each(&objects, streams, |walk, stream, raw| {
            let Some(object) = objects.list.get(stream.object) else { return Ok(()) };
            let first = last_integer(&objects, objects.value(object), b"First").unwrap_or(0);
            let first = usize::try_from(first).unwrap_or(usize::MAX);
            for decoding in &stream.decodings {
                for start in starts(raw, decoding) {
                    let reader = QuietReader(decoder(raw, &decoding.chain, start));
                    let mut content =
                        walk.unpacker.decode_part(reader.take(MAX_OBJECT_STREAM as u64 + 1))?;
                    if content.len() > MAX_OBJECT_STREAM {
                        contents.limit = Some("an object stream of a PDF is too long");
                        content.truncate(MAX_OBJECT_STREAM);
                    }
                    contents.read_members(&content, first);
                }
            }
            Ok(())
        });
        reader.objects = objects;
        reader.limit = reader.limit.or(contents.limit);
        reader.objects.append(contents.objects);
        result
    }

    /// Passes a stream.
    fn pass(
        &mut self,
        objects: &PdfObjects,
        files: &AttachedFiles,
        stream: &StreamData,
        raw: &[u8],
    ) -> Unpacked {
        let Some(object) = objects.list.get(stream.object) else { return Ok(()) };
        let entry = || match files.names.get(&object.number) {
            Some(name) => EntryName::file(name),
            None => EntryName::label(format!("object {}", object.number)),
        };
        let is_quiet = self.is_quiet || self.key.is_some() && is_plain(objects, object);
        let subtypes = objects.values(objects.value(object), b"Subtype");
        let is_pixels = subtypes.iter().all(|value| name(value) == Some(b"Image"))
            && !subtypes.is_empty()
            && object.number != NO_NUMBER
            && !files.numbers.contains(&object.number);
        for decoding in &stream.decodings {
            let starts = starts(raw, decoding);
            let is_quiet = is_quiet || starts.len() > 1;
            for start in starts {
                if decoding.chain.is_empty() {
                    self.unpacker.slice(entry(), raw)?;
                    continue;
                }
                let decoder = decoder(raw, &decoding.chain, start);
                let decoder = decoder.take(if is_pixels { MAX_PIXELS } else { u64::MAX });
                if is_quiet {
                    self.unpacker.decode(entry(), QuietReader(decoder))?;
                } else {
                    self.unpacker.decode(entry(), decoder)?;
                }
            }
            if !is_quiet {
                self.note_omitted(objects, object, decoding.omitted);
            }
        }
        Ok(())
    }

    fn note_omitted(
        &mut self,
        objects: &PdfObjects,
        object: &PdfObject,
        omitted: Option<OmittedFilter>,
    ) {
        let dict = objects.value(object);
        let is_picture = || !objects.values(dict, b"Width").is_empty();
        match omitted {
            Some(OmittedFilter::Picture) if !is_picture() => {
                self.unpacker.note(NoteKind::Unreadable, "data are encoded as a picture");
            }
            Some(OmittedFilter::Unknown) => {
                self.unpacker.note(NoteKind::Unreadable, "a stream has an unknown filter");
            }
            Some(OmittedFilter::Picture) | None => {}
        }
    }
}

/// Returns whether a stream has the entries of an object stream, whatever its type is.
fn is_object_stream(objects: &PdfObjects, stream: &StreamData) -> bool {
    let Some(object) = objects.list.get(stream.object) else { return false };
    let dict = objects.value(object);
    last_integer(objects, dict, b"N").is_some() && last_integer(objects, dict, b"First").is_some()
}

/// Returns whether a stream may be excluded from encryption.
fn is_plain(objects: &PdfObjects, object: &PdfObject) -> bool {
    let types = objects.values(objects.value(object), b"Type");
    types.into_iter().any(|value| matches!(name(value), Some(b"XRef" | b"Metadata")))
}

/// Returns the name of the filter for encryption; `None` for that of all streams.
fn crypt_filter<'k>(
    objects: &PdfObjects,
    object: &PdfObject,
    stream: &'k StreamData,
    key: &'k PdfKey,
) -> Option<&'k [u8]> {
    let named = stream.decodings.iter().find_map(|decoding| decoding.crypt_filter.as_deref());
    named.or_else(|| {
        let types = objects.values(objects.value(object), b"Type");
        let is_embedded = types.into_iter().any(|value| name(value) == Some(b"EmbeddedFile"));
        key.embedded().filter(|_| is_embedded)
    })
}

/// Returns the ways in which Flate data are read: one if the data are valid.
fn starts(raw: &[u8], decoding: &StreamDecoding) -> Vec<FlateStart> {
    let chain = &decoding.chain;
    if chain.iter().all(|(filter, _)| *filter != PdfFilter::Flate) {
        return vec![FlateStart::Missing];
    }
    let is_first = chain.first().is_some_and(|(filter, _)| *filter == PdfFilter::Flate);
    let probe = |start| {
        let mut decoded = Vec::new();
        let limited = decoder(raw, chain, start).take(PROBE as u64).read_to_end(&mut decoded);
        (decoded.len(), limited.is_ok())
    };
    let (length, is_valid) = probe(FlateStart::Missing);
    if is_valid && (length == 0 || !is_first || has_zlib_header(raw)) {
        return vec![FlateStart::Missing];
    }
    let mut starts = vec![FlateStart::Missing, FlateStart::Damaged, FlateStart::Ignored];
    starts.retain(|start| probe(*start).0 > 0);
    if starts.is_empty() {
        // The error is noted.
        starts.push(FlateStart::Missing);
    }
    starts
}

/// Ends at an error instead of returning it.
struct QuietReader<R>(R);

impl<R: Read> Read for QuietReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.0.read(buffer).unwrap_or_default())
    }
}

//! Source code of VBA projects, [MS-OVBA].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, Read},
};

use super::{
    compound::{Compound, u16_at, u32_at},
    vba_decoder::{VbaDecoder, is_container},
};
use crate::{
    report::NoteKind,
    unpack::{
        content::StreamContent,
        name::EntryName,
        unpacker::{Unpacked, Unpacker, WalkEnd},
    },
};

/// Start of the source code of a module in a compressed container: the first flag byte, and the eight characters that
/// follow without compression.
const MODULE_START: &[u8] = b"\0Attribut";

/// Number of bytes before [`MODULE_START`] in a container: its signature, and the header of a chunk.
const CONTAINER_HEADER: usize = 3;

/// Maximum size of a project's directory, bytes. It has some hundred bytes for each module.
const MAX_DIRECTORY: u64 = 4 << 20;

/// Maximum number of modules in a directory, and of streams of projects.
const MAX_MODULES: usize = 10_000;

/// The streams of one storage with a VBA project.
#[derive(Default)]
struct Project {
    /// Indexes by name in upper case.
    streams: HashMap<String, usize>,
    /// Indexes of all streams.
    all: Vec<usize>,
}

/// Passes the source code of all modules, as the project's directory lists them, and as a search finds them: the
/// directory may be damaged.
pub(super) fn unpack(compound: &Compound<'_>, unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut projects: BTreeMap<Option<usize>, Project> = BTreeMap::new();
    for index in compound.streams() {
        let parent = compound.parent(index);
        let is_named = |storage| compound.name(storage).eq_ignore_ascii_case("VBA");
        let name = compound.name(index).to_uppercase();
        if matches!(name.as_str(), "DIR" | "_VBA_PROJECT") || parent.is_some_and(is_named) {
            projects.entry(parent).or_default();
        }
    }
    let mut count = 0;
    for index in compound.streams() {
        let Some(project) = projects.get_mut(&compound.parent(index)) else { continue };
        count += 1;
        if count > MAX_MODULES {
            unpacker.note(NoteKind::Limit, "too many VBA modules");
            break;
        }
        project.streams.entry(compound.name(index).to_uppercase()).or_insert(index);
        project.all.push(index);
    }
    for project in projects.values() {
        let mut modules = listed_modules(compound, project, unpacker)?;
        for index in &project.all {
            let listed = modules.remove(index).unwrap_or_default();
            for (content, _) in compound.contents(*index) {
                let name = EntryName::file(compound.name(*index) + ".bas");
                stream(&name, &content, listed.clone(), unpacker)?;
            }
        }
    }
    Ok(())
}

/// Returns the modules that the project's directory lists, as the positions of the source code in each stream.
fn listed_modules(
    compound: &Compound<'_>,
    project: &Project,
    unpacker: &mut Unpacker<'_>,
) -> Result<HashMap<usize, BTreeSet<usize>>, WalkEnd> {
    let mut listed: HashMap<usize, BTreeSet<usize>> = HashMap::new();
    let directory = project.streams.get("DIR").copied();
    for (content, _) in directory.into_iter().flat_map(|directory| compound.contents(directory)) {
        // A directory with an error lacks its last record.
        let decoder = Lenient(VbaDecoder::new(content.reader(0))).take(MAX_DIRECTORY);
        let records = unpacker.decode_part(decoder)?;
        let (modules, is_complete) = Module::parse_directory(&records);
        if !is_complete && project.streams.contains_key("_VBA_PROJECT") {
            unpacker.note(NoteKind::Unreadable, "the directory of the VBA project is damaged");
        }
        for module in modules {
            let index = module.streams.iter().find_map(|name| project.streams.get(name).copied());
            match index {
                Some(index) => _ = listed.entry(index).or_default().insert(module.offset),
                None => unpacker.note(NoteKind::Unreadable, "a VBA module has no stream"),
            }
        }
    }
    Ok(listed)
}

/// Passes the modules in a stream, those at the listed positions first. The files are named like those that the editor
/// exports, except that it names classes differently.
fn stream(
    name: &EntryName,
    content: &StreamContent<'_>,
    mut found: BTreeSet<usize>,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    for position in &found {
        unpacker.decode(name.clone(), VbaDecoder::new(content.reader(*position)))?;
    }
    let mut next = 0;
    for position in content.positions(MODULE_START) {
        let Some(start) = position.checked_sub(CONTAINER_HEADER).filter(|start| *start >= next)
        else {
            continue;
        };
        let is_container = content.array(start).is_some_and(is_container);
        if is_container && found.insert(start) {
            let mut decoder = VbaDecoder::new(content.reader(start));
            unpacker.decode(name.clone(), Lenient(&mut decoder))?;
            next = start + decoder.consumed();
        }
    }
    Ok(())
}

/// Ends at an error.
struct Lenient<R>(R);

impl<R: Read> Read for Lenient<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.0.read(buffer).unwrap_or_default())
    }
}

/// Module in the directory of a project, [MS-OVBA] 2.3.4.2.3.2.
struct Module {
    /// Names of the stream, in upper case: in UTF-16, and in the project's code page.
    streams: Vec<String>,
    /// Position of the source code in the stream.
    offset: usize,
}

impl Module {
    /// Returns the modules, and whether the directory is complete.
    fn parse_directory(mut records: &[u8]) -> (Vec<Self>, bool) {
        const TERMINATOR: u16 = 0x10;
        const VERSION: u16 = 0x09;
        const MODULE_NAME: u16 = 0x19;
        const STREAM_NAME: u16 = 0x1a;
        const STREAM_NAME_UNICODE: u16 = 0x32;
        const OFFSET: u16 = 0x31;
        let mut modules = Vec::new();
        let mut streams = Vec::new();
        while let Some((header, rest)) = records.split_at_checked(6) {
            let id = u16_at(header, 0);
            // The size of the version is wrong by definition.
            let size = if id == VERSION { 6 } else { u32_at(header, 2) as usize };
            let Some((data, rest)) = rest.split_at_checked(size) else { break };
            match id {
                TERMINATOR => return (modules, true),
                MODULE_NAME => streams.clear(),
                STREAM_NAME => streams.push(String::from_utf8_lossy(data).to_uppercase()),
                STREAM_NAME_UNICODE => {
                    let units = data.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit));
                    let name: String = char::decode_utf16(units)
                        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
                        .collect();
                    streams.insert(0, name.to_uppercase());
                }
                OFFSET if modules.len() < MAX_MODULES => {
                    let streams = std::mem::take(&mut streams);
                    modules.push(Self { streams, offset: u32_at(data, 0) as usize });
                }
                OFFSET => break,
                _ => {}
            }
            records = rest;
        }
        (modules, false)
    }
}

//! The normalised text of a PDF: all objects in canonical form, with the actions in place of references to them, so that
//! rules match what a viewer executes.

use std::collections::{HashMap, HashSet};

use super::{
    canonical::{separate, write_literal},
    lexer::{PdfLexer, PdfToken, unescape_hex, unescape_literal},
    objects::{DictEntries, MAX_DEFINITIONS, PdfObjects, reference},
    structure::NO_NUMBER,
    text::to_utf8,
};

/// First line of the text. Rules require it.
pub(super) const HEADER: &[u8] = b"%PDF-1.7\n";

/// Maximum length of the text of one object of the walk, bytes. Longer texts are passed in parts.
pub(super) const MAX_PART: usize = 16 << 20;

/// Maximum depth of values in place of references.
const MAX_DEPTH: u32 = 3;

/// Maximum length of a value in place of a reference, bytes. A longer one is cut off: its beginning contains the type of
/// the action, and the object itself is complete.
const MAX_INSERTED: usize = 512;

/// Kinds of actions that are written before the other entries of their dictionary.
const ACTIONS: [&[u8]; 2] = [b"/JavaScript", b"/Launch"];

/// Creates the normalised text, and collects names of files and scripts on the way.
pub(super) struct Normaliser<'o> {
    objects: &'o PdfObjects,
    /// The kinds of actions by the offset of their dictionary in the text of the objects.
    actions: HashMap<usize, &'static [u8]>,
    output: Vec<u8>,
    /// Bytes that may still be inserted in place of references.
    room: usize,
    /// File names by the number of the stream.
    pub(super) names: HashMap<u32, Vec<u8>>,
    /// Numbers of all streams that are files.
    pub(super) files: HashSet<u32>,
    pub(super) scripts: Vec<Vec<u8>>,
    pub(super) is_limited: bool,
}

/// Meaning of a container.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum ContainerRole {
    #[default]
    Other,
    /// Additional actions: each entry is an action.
    Triggers,
    Action,
    /// Name tree of scripts.
    Scripts,
    /// Streams of a file specification.
    Files,
}

/// An open container.
#[derive(Default)]
struct ContainerFrame<'a> {
    is_dict: bool,
    /// Whether this stands for the container around the whole value.
    is_outer: bool,
    role: ContainerRole,
    /// The last key; in an array, the key of the array.
    key: &'a [u8],
    /// Whether the next token of a dictionary is a value.
    has_key: bool,
    /// Name and streams of a file specification.
    name: Option<(u8, Vec<u8>)>,
    files: Vec<u32>,
}

impl<'o> Normaliser<'o> {
    pub(super) fn new(objects: &'o PdfObjects) -> Self {
        Self {
            objects,
            actions: actions(objects),
            output: HEADER.to_vec(),
            room: objects.text.len().saturating_mul(2).saturating_add(1 << 20),
            names: HashMap::new(),
            files: HashSet::new(),
            scripts: Vec::new(),
            is_limited: false,
        }
    }

    /// Appends an object. Returns the text if it is long enough to be passed.
    pub(super) fn add(&mut self, index: usize) -> Option<Vec<u8>> {
        let object = self.objects.list.get(index)?;
        let title = match object.number {
            NO_NUMBER => "trailer\n".to_owned(),
            number => format!("{number} {} obj\n", object.generation),
        };
        self.output.extend(title.as_bytes());
        self.write(
            object.value.start,
            object.value.end,
            ContainerFrame { is_outer: true, ..ContainerFrame::default() },
            0,
        );
        self.output.extend(if object.number == NO_NUMBER {
            b"\n".as_slice()
        } else {
            b"\nendobj\n"
        });
        (self.output.len() > MAX_PART).then(|| self.take())
    }

    /// Returns the rest of the text.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.output, HEADER.to_vec())
    }

    /// Writes a part of the text of the objects. `outer` is the container around it.
    fn write(&mut self, start: usize, end: usize, outer: ContainerFrame<'o>, depth: u32) {
        let objects = self.objects;
        let mut lexer = PdfLexer::new(objects.text.get(..end).unwrap_or_default(), start);
        let mut open: Vec<ContainerFrame<'o>> = vec![outer];
        let limit = if depth == 0 { usize::MAX } else { self.output.len() + MAX_INSERTED };
        while let Some((at, token)) = lexer.next() {
            if self.output.len() > limit {
                break;
            }
            let Some(frame) = open.last_mut() else { break };
            match token {
                PdfToken::DictOpen | PdfToken::ArrayOpen => {
                    let is_dict = token == PdfToken::DictOpen;
                    let inner = frame.inner(is_dict);
                    frame.has_key = false;
                    self.open(at, is_dict);
                    open.push(inner);
                }
                PdfToken::DictClose | PdfToken::ArrayClose => {
                    self.output.extend(if frame.is_dict { b">>".as_slice() } else { b"]" });
                    let inner = open.pop().unwrap_or_default();
                    self.close(inner, open.last_mut(), depth);
                }
                PdfToken::Name(name) if frame.is_dict && !frame.has_key => {
                    (frame.key, frame.has_key) = (name, true);
                    self.token(b"/", name);
                }
                token => {
                    self.value(token, frame, depth);
                    frame.has_key = false;
                }
            }
        }
        // Only a value that is cut off has open containers.
        for frame in open.iter().skip(1).rev() {
            self.output.extend(if frame.is_dict { b">>".as_slice() } else { b"]" });
        }
    }

    fn open(&mut self, at: usize, is_dict: bool) {
        separate(&mut self.output);
        self.output.extend(if is_dict { b"<<".as_slice() } else { b"[" });
        if let Some(action) = self.actions.get(&at) {
            self.output.extend_from_slice(b"/S ");
            self.output.extend_from_slice(action);
        }
    }

    /// Keeps the name of a file specification that ends.
    fn close(
        &mut self,
        inner: ContainerFrame<'o>,
        outer: Option<&mut ContainerFrame<'o>>,
        depth: u32,
    ) {
        if depth > 0 {
            return;
        }
        self.files.extend(&inner.files);
        if inner.role == ContainerRole::Files {
            if let Some(outer) = outer {
                outer.files.extend(inner.files);
            }
        } else if let Some((_, name)) = inner.name {
            for file in inner.files {
                self.names.entry(file).or_insert_with(|| name.clone());
            }
        }
    }

    fn token(&mut self, prefix: &[u8], text: &[u8]) {
        separate(&mut self.output);
        self.output.extend_from_slice(prefix);
        self.output.extend_from_slice(text);
    }

    /// Writes a value that is not a container.
    fn value(&mut self, token: PdfToken<'o>, frame: &mut ContainerFrame<'o>, depth: u32) {
        match token {
            PdfToken::Literal(content) => self.string(unescape_literal(content), frame, depth),
            PdfToken::Hex(content) => self.string(unescape_hex(content), frame, depth),
            PdfToken::Reference(number) => self.reference(number, frame, depth),
            PdfToken::Name(name) => self.token(b"/", name),
            PdfToken::Word(word) => self.token(b"", word),
            // Containers are written elsewhere.
            PdfToken::DictOpen
            | PdfToken::DictClose
            | PdfToken::ArrayOpen
            | PdfToken::ArrayClose => {}
        }
    }

    fn string(&mut self, string: Vec<u8>, frame: &mut ContainerFrame<'o>, depth: u32) {
        let string = to_utf8(string);
        separate(&mut self.output);
        write_literal(&mut self.output, &string);
        if depth > 0 {
            return;
        }
        // Indirect strings are values of other objects.
        let is_indirect = frame.is_outer;
        if frame.has_key
            && let Some(rank) = name_rank(frame.key)
        {
            frame.add_name(rank, string);
        } else if (frame.key == b"JS" && frame.has_key || is_indirect) && !string.is_empty() {
            self.scripts.push(string);
        }
    }

    fn reference(&mut self, number: u32, frame: &mut ContainerFrame<'o>, depth: u32) {
        let objects = self.objects;
        if depth == 0 {
            frame.note_file(objects, number);
        }
        let mut is_inserted = false;
        if frame.is_replaced() && depth < MAX_DEPTH {
            for object in objects.definitions(number).take(MAX_DEFINITIONS) {
                if self.room == 0 {
                    self.is_limited = true;
                    break;
                }
                // Each definition is the value of a key of its own.
                if is_inserted && frame.is_dict {
                    self.token(b"/", frame.key);
                }
                let before = self.output.len();
                let outer = ContainerFrame {
                    is_dict: frame.is_dict,
                    role: frame.role,
                    key: frame.key,
                    has_key: frame.has_key,
                    ..ContainerFrame::default()
                };
                self.write(object.value.start, object.value.end, outer, depth + 1);
                self.room = self.room.saturating_sub((self.output.len() - before).max(1));
                is_inserted = true;
            }
        }
        if !is_inserted {
            self.token(b"", format!("{number} 0 R").as_bytes());
        }
    }
}

impl ContainerFrame<'_> {
    /// Returns a container in this one.
    fn inner(&self, is_dict: bool) -> Self {
        let role = match (self.role, self.key) {
            _ if !self.is_dict => self.role,
            (ContainerRole::Triggers, _) | (_, b"OpenAction" | b"A" | b"PA" | b"Next") => {
                ContainerRole::Action
            }
            (_, b"AA") => ContainerRole::Triggers,
            (_, b"JavaScript") | (ContainerRole::Scripts, b"Names" | b"Kids") => {
                ContainerRole::Scripts
            }
            (_, b"EF" | b"RF") | (ContainerRole::Files, _) => ContainerRole::Files,
            _ => ContainerRole::Other,
        };
        let key = if is_dict { [].as_slice() } else { self.key };
        // A destination is an array in place of an action.
        let role = if !is_dict && role == ContainerRole::Action && key != b"Next" {
            ContainerRole::Other
        } else {
            role
        };
        Self { is_dict, role, key, ..Self::default() }
    }

    /// Returns whether a reference at this place is replaced by its value.
    fn is_replaced(&self) -> bool {
        match self.key {
            b"OpenAction" | b"AA" | b"A" | b"PA" | b"Next" | b"JavaScript" => {
                self.is_dict || self.key == b"Next"
            }
            b"S" | b"F" | b"UF" | b"Win" => {
                self.role == ContainerRole::Action || self.role == ContainerRole::Triggers
            }
            b"Names" | b"Kids" => self.role == ContainerRole::Scripts,
            _ => self.role == ContainerRole::Triggers && self.is_dict,
        }
    }

    fn add_name(&mut self, rank: u8, name: Vec<u8>) {
        if self.name.as_ref().is_none_or(|(other, _)| rank < *other) && !name.is_empty() {
            self.name = Some((rank, name));
        }
    }

    /// Notes a reference in a file specification.
    fn note_file(&mut self, objects: &PdfObjects, number: u32) {
        if self.role == ContainerRole::Files {
            self.files.push(number);
            return;
        }
        if !self.is_dict || !self.has_key {
            return;
        }
        if matches!(self.key, b"EF" | b"RF") {
            for object in objects.definitions(number) {
                let entries = DictEntries::new(objects.value(object)).take(MAX_DEFINITIONS);
                self.files.extend(entries.filter_map(|(_, value)| reference(value)));
            }
        } else if let Some(rank) = name_rank(self.key) {
            for object in objects.definitions(number) {
                if let Some((_, PdfToken::Literal(content))) =
                    PdfLexer::new(objects.value(object), 0).next()
                {
                    self.add_name(rank, to_utf8(unescape_literal(content)));
                }
            }
        }
    }
}

/// Returns the rank of a key for the name of a file, 7.11.3; the first one is used.
fn name_rank(key: &[u8]) -> Option<u8> {
    match key {
        b"UF" => Some(0),
        b"F" => Some(1),
        b"Unix" | b"DOS" | b"Mac" => Some(2),
        _ => None,
    }
}

/// Returns the kinds of actions, also of those whose kind is a reference.
fn actions(objects: &PdfObjects) -> HashMap<usize, &'static [u8]> {
    let mut actions = HashMap::new();
    let mut lexer = PdfLexer::new(&objects.text, 0);
    // Offsets of the open dictionaries, and whether the last token is the key.
    let mut open: Vec<usize> = Vec::new();
    let mut is_kind = false;
    while let Some((at, token)) = lexer.next() {
        match token {
            PdfToken::DictOpen | PdfToken::ArrayOpen => open.push(at),
            PdfToken::DictClose | PdfToken::ArrayClose => _ = open.pop(),
            PdfToken::Name(_) | PdfToken::Reference(_) if is_kind => {
                let value = objects.text.get(at..lexer.position).unwrap_or_default();
                let values = objects.resolve(value);
                let action = ACTIONS.into_iter().find(|action| values.contains(action));
                if let Some((action, dict)) = action.zip(open.last()) {
                    actions.insert(*dict, action);
                }
            }
            _ => {}
        }
        is_kind = matches!(token, PdfToken::Name(b"S"));
    }
    actions
}

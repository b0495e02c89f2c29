//! The objects of a file in canonical form, and how entries of dictionaries are found in them.

use std::ops::Range;

use super::{
    lexer::{PdfLexer, PdfToken},
    structure::NO_NUMBER,
};

/// Maximum number of definitions of one object that are considered where it is referred to.
pub(super) const MAX_DEFINITIONS: usize = 16;

/// Maximum number of references that are followed from one value.
const MAX_STEPS: usize = 4 * MAX_DEFINITIONS;

/// An object, or a trailer.
#[derive(Clone, Debug)]
pub(super) struct PdfObject {
    /// [`NO_NUMBER`] for trailers.
    pub(super) number: u32,
    pub(super) generation: u32,
    /// Range of the value in [`PdfObjects::text`].
    pub(super) value: Range<usize>,
    /// Offset behind `stream` in the file.
    pub(super) stream: Option<usize>,
}

/// All objects.
#[derive(Default)]
pub(super) struct PdfObjects {
    /// The values in canonical form.
    pub(super) text: Vec<u8>,
    pub(super) list: Vec<PdfObject>,
    /// Numbers and indices in `list`, sorted.
    by_number: Vec<(u32, usize)>,
}

impl PdfObjects {
    pub(super) fn add(&mut self, object: PdfObject) {
        self.list.push(object);
    }

    /// Adds objects in object streams.
    pub(super) fn append(&mut self, other: Self) {
        let start = self.text.len();
        self.text.extend(other.text);
        self.list.extend(other.list.into_iter().map(|mut object| {
            object.value = object.value.start + start..object.value.end + start;
            object
        }));
    }

    /// Makes objects that were added visible to references.
    pub(super) fn index(&mut self) {
        let numbers = self.list.iter().enumerate().map(|(index, object)| (object.number, index));
        self.by_number = numbers.filter(|(number, _)| *number != NO_NUMBER).collect();
        self.by_number.sort_unstable();
    }

    /// Returns the canonical value of an object.
    pub(super) fn value(&self, object: &PdfObject) -> &[u8] {
        self.text.get(object.value.clone()).unwrap_or_default()
    }

    /// Returns the definitions of an object in different revisions, the last ones if there are too many.
    pub(super) fn definitions(&self, number: u32) -> impl Iterator<Item = &PdfObject> {
        let start = self.by_number.partition_point(|(other, _)| *other < number);
        let end = self.by_number.partition_point(|(other, _)| *other <= number);
        let start = start.max(end.saturating_sub(MAX_DEFINITIONS));
        let indices = self.by_number.get(start..end).unwrap_or_default();
        indices.iter().filter_map(|(_, index)| self.list.get(*index))
    }

    /// Returns what `value` may be: itself, or the definitions of the object that it refers to.
    pub(super) fn resolve<'a>(&'a self, value: &'a [u8]) -> Vec<&'a [u8]> {
        let mut values = vec![value];
        // References may form a loop.
        for step in 0..MAX_STEPS {
            let Some(value) = values.get(step) else { break };
            if let Some(number) = reference(value) {
                let room = MAX_STEPS.saturating_sub(values.len());
                values.extend(self.definitions(number).take(room).map(|object| self.value(object)));
            }
        }
        values.retain(|value| reference(value).is_none());
        values
    }

    /// Returns the values of a key. A dictionary may contain a key more than once, and viewers differ in which they use.
    pub(super) fn values<'a>(&'a self, dict: &'a [u8], key: &[u8]) -> Vec<&'a [u8]> {
        let values = DictEntries::new(dict).filter(|(name, _)| *name == key);
        values.take(MAX_DEFINITIONS).flat_map(|(_, value)| self.resolve(value)).collect()
    }
}

/// Returns the number of a value that is a reference.
pub(super) fn reference(value: &[u8]) -> Option<u32> {
    // `4294967295 65535 R` has 18 bytes.
    if value.len() > 24 || !value.ends_with(b"R") {
        return None;
    }
    match PdfLexer::new(value, 0).next() {
        Some((_, PdfToken::Reference(number))) => Some(number),
        _ => None,
    }
}

/// Returns the content of a value that is a name.
pub(super) fn name(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"/")
}

/// Keys and values of a dictionary in canonical form. Empty for other values.
pub(super) struct DictEntries<'a>(PdfLexer<'a>);

impl<'a> DictEntries<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        let start = if value.starts_with(b"<<") { 2 } else { value.len() };
        Self(PdfLexer::new(value, start))
    }
}

impl<'a> Iterator for DictEntries<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next()?.1 {
                PdfToken::Name(name) => return Some((name, next_value(&mut self.0)?)),
                PdfToken::DictClose => {
                    // Values behind the dictionary are not entries.
                    self.0.position = self.0.bytes.len();
                    return None;
                }
                _ => {}
            }
        }
    }
}

/// Values of an array in canonical form; of another value, that value.
pub(super) struct ArrayItems<'a>(PdfLexer<'a>);

impl<'a> ArrayItems<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self(PdfLexer::new(value, usize::from(value.starts_with(b"["))))
    }
}

impl<'a> Iterator for ArrayItems<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        next_value(&mut self.0).filter(|value| !value.is_empty())
    }
}

/// Returns the next value; empty at the end of a container.
fn next_value<'a>(lexer: &mut PdfLexer<'a>) -> Option<&'a [u8]> {
    lexer.skip_blank();
    let start = lexer.position;
    let mut depth = 0_usize;
    loop {
        let before = lexer.position;
        match lexer.next()?.1 {
            PdfToken::DictOpen | PdfToken::ArrayOpen => depth += 1,
            PdfToken::DictClose | PdfToken::ArrayClose => {
                let Some(outer) = depth.checked_sub(1) else {
                    lexer.position = before;
                    return Some(&[]);
                };
                depth = outer;
            }
            _ => {}
        }
        if depth == 0 {
            return lexer.bytes.get(start..lexer.position);
        }
    }
}

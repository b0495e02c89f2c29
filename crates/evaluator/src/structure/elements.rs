//! Start tags in one form.

use std::collections::BTreeSet;

use memchr::{memchr, memmem};

use super::markup::{AttributeReader, MarkupReader, MarkupToken, decode_references, local_name};

/// Namespace of drawings.
const DRAWING: &[u8] = b"http://www.w3.org/2000/svg";

/// Namespace of pages.
const PAGE: &[u8] = b"http://www.w3.org/1999/xhtml";

/// First elements of the documents whose elements rules examine: drawings, relationships and other parts of Office
/// documents, Office documents in one XML file, and forms in PDF.
const ROOTS: [&[u8]; 7] =
    [b"svg", b"relationships", b"package", b"worddocument", b"externallink", b"xdp", b"template"];

/// Prefixes of addresses on other machines, except those of `file:` URLs.
const REMOTE: [&[u8]; 7] = [b"http:", b"https:", b"ftp:", b"mhtml:", b"\\\\", b"//", b"%5c%5c"];

/// Maximum length of a value, bytes. The beginning of an address contains its scheme.
const MAX_VALUE: usize = 256;

/// Maximum length of a name in the line of an attribute, bytes.
const MAX_NAME: usize = 32;

/// Maximum length of the lines, as a multiple of the text.
const MAX_GROWTH: usize = 4;

/// Returns whether rules examine the elements of a document with this root.
pub(super) fn has_known_root(name: &[u8], attributes: &[u8]) -> bool {
    ROOTS.contains(&name)
        || name != b"html"
            && AttributeReader(attributes).any(|(_, value)| *decode_references(value) == *DRAWING)
}

/// Prefixes of names.
struct Prefixes<'a> {
    /// Whether elements of all namespaces are written without prefix.
    are_ignored: bool,
    /// Prefixes of drawings and pages.
    known: BTreeSet<&'a [u8]>,
}

impl<'a> Prefixes<'a> {
    fn add(&mut self, attributes: &'a [u8]) {
        if self.are_ignored {
            return;
        }
        for (name, value) in AttributeReader(attributes) {
            let Some(prefix) = name.strip_prefix(b"xmlns:") else { continue };
            let namespace = decode_references(value);
            // The value may be an entity.
            if *namespace == *DRAWING || *namespace == *PAGE || namespace.contains(&b'&') {
                self.known.insert(prefix);
            }
        }
    }

    /// Returns the name of an element without the prefix, if that has no other meaning.
    fn element_name<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        let local = local_name(name);
        let prefix = name.strip_suffix(local).and_then(|prefix| prefix.strip_suffix(b":"));
        match prefix {
            Some(prefix) if !self.are_ignored && !self.known.contains(prefix) => name,
            _ => local,
        }
    }
}

/// Returns a line for each element, with its name, and for each attribute, `element TAB attribute=value`, in lower case.
///
/// Names have no prefix, except those of elements of a drawing that are neither of drawings nor of pages. Values have no
/// references, and `=` as a reference; they have no control characters, and are shortened. Values of entities are an
/// attribute of an element `entity`, and elements in them follow. A relationship to another machine has the attribute
/// `remote` with its kind, and an event of a form has its activity as an attribute with the type of its script.
///
/// Returns `None` if the lines are too long together. Names and values are shortened, so only contrived files have such
/// lines.
pub(super) fn write_elements(root: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let mut output = vec![b'\n'];
    let max_length = text.len().saturating_mul(MAX_GROWTH).saturating_add(1 << 20);
    let are_ignored = root != b"svg" && ROOTS.contains(&root);
    let mut prefixes = Prefixes { are_ignored, known: BTreeSet::new() };
    let mut activity = None;
    for token in MarkupReader::new(text) {
        if output.len() > max_length {
            return None;
        }
        match token {
            MarkupToken::Start { name, attributes } => {
                prefixes.add(attributes);
                let name = prefixes.element_name(name).to_ascii_lowercase();
                write_element(&name, attributes, &mut output);
                match name.as_slice() {
                    b"relationship" => write_remote(attributes, &mut output),
                    b"event" => activity = attribute(attributes, b"activity"),
                    b"script" => {
                        let kind = attribute(attributes, b"contenttype");
                        if let Some((activity, kind)) = activity.as_deref().zip(kind) {
                            write_attribute(b"event", activity, &kind, &mut output);
                        }
                    }
                    _ => {}
                }
            }
            MarkupToken::End(name) if local_name(name).eq_ignore_ascii_case(b"event") => {
                activity = None;
            }
            MarkupToken::Declaration(declaration) => write_declaration(declaration, &mut output),
            MarkupToken::End(_) | MarkupToken::Text(_) => {}
        }
    }
    Some(output)
}

fn write_element(name: &[u8], attributes: &[u8], output: &mut Vec<u8>) {
    output.extend(name);
    output.push(b'\n');
    for (attribute, value) in AttributeReader(attributes) {
        // Without a value, an attribute has no effect.
        if !value.is_empty() {
            write_attribute(name, &attribute_name(attribute), &normal_value(value), output);
        }
    }
}

fn write_attribute(element: &[u8], name: &[u8], value: &[u8], output: &mut Vec<u8>) {
    let element = element.get(..MAX_NAME).unwrap_or(element);
    let name = name.get(..MAX_NAME).unwrap_or(name);
    for part in [element, b"\t", name, b"=", value, b"\n"] {
        output.extend_from_slice(part);
    }
}

/// Returns the value of an attribute.
fn attribute(attributes: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut attributes = AttributeReader(attributes);
    let (_, value) = attributes.find(|(other, _)| attribute_name(other) == name)?;
    Some(normal_value(value))
}

/// Returns the name of an attribute without prefix, except that the attributes of other namespaces are no handlers, and
/// that declarations of namespaces have one name.
fn attribute_name(name: &[u8]) -> Vec<u8> {
    let name: Vec<_> = name.iter().filter(|byte| !byte.is_ascii_control()).copied().collect();
    let name = name.to_ascii_lowercase();
    if name.starts_with(b"xmlns:") {
        return b"xmlns".to_vec();
    }
    let local = local_name(&name);
    if local.starts_with(b"on") { name } else { local.to_vec() }
}

/// Returns a value in its normal form.
fn normal_value(value: &[u8]) -> Vec<u8> {
    let value = decode_references(value);
    let characters = value.iter().filter(|byte| !byte.is_ascii_control());
    let characters = characters.skip_while(|byte| **byte == b' ').take(MAX_VALUE);
    let mut normal = Vec::new();
    for byte in characters {
        match byte {
            b'=' => normal.extend(b"&equals;"),
            _ => normal.push(byte.to_ascii_lowercase()),
        }
    }
    normal
}

/// Writes the kind of a relationship if the target is on another machine.
fn write_remote(attributes: &[u8], output: &mut Vec<u8>) {
    let is_external = attribute(attributes, b"targetmode").is_some_and(|mode| mode == b"external");
    let target = attribute(attributes, b"target").filter(|_| is_external);
    if let Some((target, kind)) = target.zip(attribute(attributes, b"type"))
        && is_remote(&target)
    {
        let kind = kind.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        write_attribute(b"relationship", b"remote", kind, output);
    }
}

/// Returns whether an address is on another machine.
fn is_remote(address: &[u8]) -> bool {
    let Some(path) = address.strip_prefix(b"file:") else {
        return REMOTE.iter().any(|start| address.starts_with(start));
    };
    let slashes = path.iter().take_while(|byte| **byte == b'/').count();
    let path = path.get(slashes..).unwrap_or_default();
    // `file://host/share`, and `file:///\\host\share` with any number of slashes.
    path.starts_with(b"\\\\")
        || path.starts_with(b"%5c%5c")
        || slashes >= 4
        || slashes == 2 && path.get(1) != Some(&b':')
}

/// Writes a style sheet, and the entities of a document type.
fn write_declaration(declaration: &[u8], output: &mut Vec<u8>) {
    if let Some(attributes) = declaration.strip_prefix(b"?xml-stylesheet") {
        write_element(b"stylesheet", attributes, output);
        return;
    }
    let mut rest = declaration;
    while let Some(position) = memmem::find(rest, b"<!ENTITY") {
        rest = rest.get(position + 8..).unwrap_or_default();
        let is_quote = |byte: &u8| matches!(byte, b'"' | b'\'' | b'>');
        let Some(start) = rest.iter().position(is_quote) else { return };
        let Some((quote, value)) = rest.get(start..).and_then(<[u8]>::split_first) else { return };
        rest = value;
        let Some(length) = memchr(*quote, value) else { return };
        if *quote != b'>' {
            let value = value.get(..length).unwrap_or_default();
            write_attribute(b"entity", b"value", &normal_value(value), output);
            for token in MarkupReader::new(&decode_references(value)) {
                if let MarkupToken::Start { name, attributes } = token {
                    write_element(&local_name(name).to_ascii_lowercase(), attributes, output);
                }
            }
            rest = rest.get(length + 1..).unwrap_or_default();
        }
    }
}

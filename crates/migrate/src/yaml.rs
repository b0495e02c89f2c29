//! Parses the subset of YAML that a configuration needs into a tree of nodes with line numbers.
//!
//! Safe for untrusted text: size, depth and what aliases expand to are limited, an alias shares the node
//! of its anchor instead of copying it, and nothing here recurses. <https://yaml.org/spec/1.2.2/>

use std::{collections::HashMap, rc::Rc};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

/// Maximum size of the text, in bytes.
pub(crate) const MAX_SIZE: usize = 256 * 1024;

/// Maximum nesting depth; both scanners' files need four levels.
const MAX_DEPTH: usize = 16;

/// Maximum size of the nodes with aliases written out: bytes of scalars, plus one a node. Files without
/// aliases are below, since escapes expand to at most 1.5 times their size.
const MAX_EXPANDED_SIZE: usize = 2 * MAX_SIZE;

/// Prefix of the core schema's tags; other tags would change the meaning of a value.
const CORE_TAG_PREFIX: &str = "tag:yaml.org,2002:";

/// Errors that prevent parsing the old file. Line numbers start at 1.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum YamlError {
    /// Larger than 256 KiB.
    #[error("larger than {} KiB", MAX_SIZE / 1024)]
    TooLarge,
    /// Not YAML.
    #[error("line {line}: not YAML: {message}")]
    Syntax {
        /// Where parsing failed.
        line: usize,
        /// Message of the parser.
        message: String,
    },
    /// Nested deeper than 16 levels, aliases included; with the line.
    #[error("line {0}: nested deeper than {MAX_DEPTH} levels")]
    TooDeep(usize),
    /// Aliases repeat too much content; with the line.
    #[error("line {0}: aliases repeat too much content; write the values out")]
    TooManyAliases(usize),
    /// Valid YAML that a configuration does not need.
    #[error("line {line}: {feature} is not supported; write the values out")]
    Unsupported {
        /// Where the feature is used.
        line: usize,
        /// The feature, e.g. "a merge key (<<)".
        feature: &'static str,
    },
    /// No content, or only comments.
    #[error("the file is empty")]
    Empty,
}

/// A value and its line. Has no `Debug`, since the value may be a secret.
pub(crate) struct Node {
    /// For a block scalar, the line of its first line of text.
    pub(crate) line: usize,
    pub(crate) value: Yaml,
    /// Number of levels, including this one.
    height: usize,
    /// Size with aliases written out, as limited by [`MAX_EXPANDED_SIZE`].
    size: usize,
}

pub(crate) enum Yaml {
    Null,
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<MapEntry>),
}

pub(crate) struct MapEntry {
    pub(crate) key: String,
    pub(crate) line: usize,
    pub(crate) node: Rc<Node>,
}

/// A list or mapping that is not complete.
struct OpenNode {
    line: usize,
    anchor: usize,
    height: usize,
    size: usize,
    content: NodeContent,
}

enum NodeContent {
    List(Vec<Rc<Node>>),
    /// The entries, and the key whose value comes next.
    Map(Vec<MapEntry>, Option<(String, usize)>),
}

/// Parses a text with a single document, which begins in this line of the file.
pub(crate) fn parse_at(text: &str, first_line: usize) -> Result<Rc<Node>, YamlError> {
    let mut documents = parse_documents_at(text, first_line)?;
    if let Some(second) = documents.get(1) {
        let feature = "a second document";
        return Err(YamlError::Unsupported { line: second.line, feature });
    }
    Ok(documents.swap_remove(0))
}

/// Parses all documents of a text; at least one.
pub(crate) fn parse_documents(text: &str) -> Result<Vec<Rc<Node>>, YamlError> {
    parse_documents_at(text, 1)
}

fn parse_documents_at(text: &str, first_line: usize) -> Result<Vec<Rc<Node>>, YamlError> {
    if text.len() > MAX_SIZE {
        return Err(YamlError::TooLarge);
    }
    let lines_before = first_line.saturating_sub(1);
    let mut builder = Builder { lines_before, ..Builder::default() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError::Syntax {
            line: error.marker().line() + lines_before,
            message: error.info().to_owned(),
        })?;
        builder.take(event, &span)?;
    }
    builder.documents.extend(builder.root);
    // A document without content, such as comments between two separators.
    builder.documents.retain(|document| !matches!(document.value, Yaml::Null));
    if builder.documents.is_empty() { Err(YamlError::Empty) } else { Ok(builder.documents) }
}

#[derive(Default)]
struct Builder {
    open: Vec<OpenNode>,
    /// Complete nodes by anchor. Incomplete ones are missing, so that no node can contain itself.
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    /// Complete documents before `root`.
    documents: Vec<Rc<Node>>,
    /// Number of lines before the text in the file.
    lines_before: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), YamlError> {
        let line = span.start.line() + self.lines_before;
        match event {
            Event::DocumentStart(_) => {
                self.documents.extend(self.root.take());
                self.anchors.clear();
            }
            Event::Scalar(text, style, anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                let is_null = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let size = 1 + text.len();
                let value = if is_null { Yaml::Null } else { Yaml::Text(text.into_owned()) };
                self.close(Node { line, value, height: 1, size }, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                self.open(line, anchor, NodeContent::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), line)?;
                self.open(line, anchor, NodeContent::Map(Vec::new(), None))?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(OpenNode { line, anchor, height, size, content }) = self.open.pop() {
                    let value = match content {
                        NodeContent::List(list) => Yaml::List(list),
                        NodeContent::Map(entries, _) => Yaml::Map(entries),
                    };
                    self.close(Node { line, value, height: height + 1, size }, anchor)?;
                }
            }
            Event::Alias(anchor) => {
                let feature = "an alias of an enclosing value";
                let node = self.anchors.get(&anchor).cloned();
                self.attach(node.ok_or(YamlError::Unsupported { line, feature })?, line)?;
            }
            Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => {}
        }
        Ok(())
    }

    fn open(&mut self, line: usize, anchor: usize, content: NodeContent) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError::TooDeep(line));
        }
        self.open.push(OpenNode { line, anchor, height: 0, size: 1, content });
        Ok(())
    }

    fn close(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        let line = node.line;
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node, line)
    }

    /// Attaches a node as a key, value, element, or the whole document.
    fn attach(&mut self, node: Rc<Node>, line: usize) -> Result<(), YamlError> {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        // Aliases of aliases create depth that the nesting of the text does not show.
        parent.height = parent.height.max(node.height);
        if parent.height > MAX_DEPTH {
            return Err(YamlError::TooDeep(line));
        }
        parent.size += node.size;
        if parent.size > MAX_EXPANDED_SIZE {
            return Err(YamlError::TooManyAliases(line));
        }
        match &mut parent.content {
            NodeContent::List(list) => list.push(node),
            NodeContent::Map(entries, key) => match (key.take(), &node.value) {
                (Some((key, line)), _) => entries.push(MapEntry { key, line, node }),
                (None, Yaml::Text(text)) if text == "<<" => {
                    return Err(YamlError::Unsupported { line, feature: "a merge key (<<)" });
                }
                (None, Yaml::Text(text)) => *key = Some((text.clone(), line)),
                (None, _) => {
                    let feature = "a key that is not text";
                    return Err(YamlError::Unsupported { line, feature });
                }
            },
        }
        Ok(())
    }
}

fn check_tag(tag: Option<&Tag>, line: usize) -> Result<(), YamlError> {
    match tag {
        Some(tag) if tag.handle != CORE_TAG_PREFIX && tag.handle != "!!" => {
            Err(YamlError::Unsupported { line, feature: "a tag (!)" })
        }
        Some(tag)
            if !["str", "int", "float", "bool", "null", "seq", "map"]
                .contains(&tag.suffix.as_str()) =>
        {
            Err(YamlError::Unsupported { line, feature: "a tag (!!)" })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn parse(text: &str) -> Result<Rc<Node>, YamlError> {
        parse_at(text, 1)
    }

    fn error(text: &str) -> YamlError {
        match parse(text) {
            Err(error) => error,
            Ok(_) => panic!("accepted: {}", text.chars().take(40).collect::<String>()),
        }
    }

    #[test]
    fn records_lines() {
        let root = parse("# about\na:\n  b: [x, 'y']\n  c: ~\n").unwrap_or_else(|e| panic!("{e}"));
        let Yaml::Map(sections) = &root.value else { panic!("not a map") };
        assert_eq!((sections[0].key.as_str(), sections[0].line), ("a", 2));
        let Yaml::Map(keys) = &sections[0].node.value else { panic!("not a map") };
        let Yaml::List(list) = &keys[0].node.value else { panic!("not a list") };
        assert!(matches!(&list[1].value, Yaml::Text(text) if text == "y"));
        assert!(matches!((&keys[1].node.value, keys[1].line), (Yaml::Null, 4)));
    }

    #[test]
    fn reads_documents_and_lines_of_embedded_texts() {
        let documents = parse_documents("---\na: |\n  b: 1\n  c: 2\n---\n# none\n---\nd: 'x'\n");
        let documents = documents.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(documents.len(), 2);
        let Yaml::Map(entries) = &documents[0].value else { panic!("not a map") };
        let Yaml::Text(text) = &entries[0].node.value else { panic!("not text") };
        let root = parse_at(text, entries[0].node.line).unwrap_or_else(|e| panic!("{e}"));
        let Yaml::Map(entries) = &root.value else { panic!("not a map") };
        assert_eq!((entries[1].key.as_str(), entries[1].line), ("c", 4));
        assert!(matches!(parse_at("a: [", 7), Err(YamlError::Syntax { line: 7.., .. })));
    }

    #[test]
    fn rejects_unsupported_text_with_line() {
        assert_eq!(error(""), YamlError::Empty);
        assert_eq!(error("# nothing\n"), YamlError::Empty);
        assert!(matches!(error("a: 1\nb: [1, 2\n"), YamlError::Syntax { line: 2.., .. }));
        assert!(matches!(error("a: 'open"), YamlError::Syntax { .. }));
        for (text, expected_line) in [
            ("a: 1\n---\nb: 2\n", 3),
            ("a: !include x\n", 1),
            ("a: 1\nb: !!python/name:os.system\n", 2),
            ("a: !!binary aGk=\n", 1),
            ("base: &b {x: 1}\nweb:\n  <<: *b\n", 3),
            ("a: &a [*a]\n", 1),
            ("[x]: 1\n", 1),
        ] {
            assert!(
                matches!(error(text), YamlError::Unsupported { line, .. } if line == expected_line),
                "{text}"
            );
        }
        assert_eq!(error(&"x".repeat(MAX_SIZE + 1)), YamlError::TooLarge);
    }

    /// Texts that are repeated up to the maximum size.
    const HOSTILE_UNITS: &[&str] = &[
        "[",
        "{",
        "- ",
        "? ",
        ": ",
        "&a ",
        "*a",
        "!",
        "!!",
        "'",
        "\"",
        "|",
        ">",
        "%",
        "\\",
        "\t",
        "#",
        "a: ",
        "a:\n ",
        "[a,",
        "{a: ",
        "- [",
        "? [",
        "&a [",
        "\n",
        "\n-",
        "---\n",
        "...\n",
        "a:\n",
        "x",
        "x ",
        "\u{85}",
        "\u{feff}",
        "'a': ",
        "\"\\u0041",
        "[\n",
        "{\n",
        "[[[]],",
        "- - ",
        "a: b: ",
        "\"\\\n",
        "? ? ",
        "[? ",
        "{? a: ",
        "&a a: *a\n",
        "|\n ",
        ">2\n  x\n",
    ];

    /// The time limit is far above the time needed on a busy machine.
    #[test]
    fn parses_hostile_text_in_bounded_time() {
        let laughs = |repeats| {
            (0..20).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
                let next = n + 1;
                format!("{text}a{next}: &a{next} [{}]\n", vec![format!("*a{n}"); repeats].join(","))
            })
        };
        assert!(matches!(error(&laughs(1)), YamlError::TooDeep(_)));
        assert!(matches!(error(&laughs(9)), YamlError::TooManyAliases(_)));
        let size = MAX_SIZE - 16;
        for unit in HOSTILE_UNITS {
            let text = unit.repeat(size / unit.len());
            let start = Instant::now();
            let _result = parse(&text);
            assert!(start.elapsed() < Duration::from_secs(20), "{unit:?}: {:?}", start.elapsed());
        }
        // Increasing depth, one level per line.
        let stairs: Vec<_> = (0..700).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        let stairs = stairs.concat();
        assert!(matches!(error(&stairs[..size.min(stairs.len())]), YamlError::TooDeep(_)));
    }
}
